#pragma once
#include "apps/log.h"
#include "apps/ranks.h"

namespace agon {

/// What was asked of a run during a step.
struct StepEnd {
  int stop = 0;       // the signal that asked to save and stop, or 0
  bool save = false;  // whether to save a checkpoint
};

/// What was asked of any rank, the same on all, so that all do it after the same step; one small call. Fills what
/// `report` has of communication from each rank's `moved` in the step. Collective.
StepEnd meet(const StepEnd& here, const Communication& moved, Ranks& ranks, StepReport& report);

/// "rank 3 on HOST is slow: ..." where the others waited more than 1 s and more than half the step for it; else "".
std::string slow_rank(const StepReport& report, Ranks& ranks);

}  // namespace agon
