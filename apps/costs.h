#pragma once
#include "apps/report_tables.h"
#include "apps/trainer.h"

namespace agon {

/// What a rank has in memory before and after every step, without its moments.
MemoryUse lasting_memory(LanguageModel& model, const Corpus& corpus);

/// Measures what a step takes beside the `lasting`, and says on rank 0 what the model costs and how many sequences fit:
/// in a line, or, for a dry run, in a table. UserError where a GPU has too little memory for a step. Collective.
void show_costs(const Config& config, LanguageModel& model, Trainer& trainer, MemoryUse lasting, bool dry_run,
                Ranks& ranks);

}  // namespace agon
