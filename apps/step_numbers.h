#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "apps/log.h"
#include "apps/step_log.h"

namespace agon {

/// Where the numbers of one micro-batch are in the log of its step.
struct NumbersOfMicro {
  struct Layer {
    std::vector<std::pair<std::string, StepLog::Place>> losses;
    std::vector<std::string> figures;  // the names of the numbers at `values`
    StepLog::Place values, load;
  };
  StepLog::Place loss, total;  // of the head, and with the layers' losses
  std::vector<Layer> layers;   // of all blocks
};

/// Fills what a report has of its micro-batches (at least one) on all ranks: losses, loads, routing figures, competing
/// layers. The log has been read; `micros` are this rank's, and those of the others are at the same places.
void add_up(const StepLog& log, std::span<const NumbersOfMicro> micros, StepReport& report);

}  // namespace agon
