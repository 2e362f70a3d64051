#pragma once
#include <span>

#include "autograd/parameter.h"
#include "distributed/communicator.h"

namespace agon {

/// Sums gradients, in place and in the order given: those of shared parameters over `all` ranks, those of experts over
/// the ranks that hold a copy (placement.h). There is no division: the loss was divided by the tokens of all ranks.
/// Collective; all ranks give corresponding parameters, each with a gradient.
void all_reduce_gradients(std::span<Parameter* const> parameters, Communicator& all, Communicator& expert_replicas);

}  // namespace agon
