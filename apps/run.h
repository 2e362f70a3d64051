#pragma once
#include <optional>
#include <string>
#include <vector>

#include "apps/run_directory.h"
#include "apps/trainer.h"
#include "apps/training_state.h"
#include "apps/verbs.h"

namespace agon {

/// Everything a training holds, on one of its ranks.
struct Run {
  /// Begins a run or takes up one that is there. All ranks must have the same program, configuration (but for paths,
  /// devices' numbers, threads and the log) and text: a UserError names the ranks and what differs. What one rank
  /// cannot do is the same error on all. Nothing is written before all are sure of it. Collective.
  Run(const TrainArguments& arguments, Communicator& all);

  const TrainArguments arguments;
  const Config config;
  Ranks ranks;
  std::optional<RunDirectory> directory;  // on the first rank, and not in a dry run
  TrainingState state;
  Corpus corpus;
  std::optional<LanguageModel> model;
  std::optional<Optimizer> optimizer;
  std::optional<TrainingData> data;
  std::optional<EvaluationData> valid;  // where there is something to evaluate on
  std::optional<Trainer> trainer;
  std::vector<int32_t> sample_prompt;

 private:
  std::optional<Checkpoint> continue_from();
  void refuse_other(const Config& before) const;
  void load_corpus_of(const std::optional<Checkpoint>& checkpoint, const std::optional<Checkpoint>& start);
  void make_parts();
};

}  // namespace agon
