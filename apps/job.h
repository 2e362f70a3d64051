#pragma once
#include <functional>

#include "apps/config.h"
#include "distributed/communicator.h"

namespace agon {

/// Runs `body` as one rank of the job this process belongs to (distributed/make.h), with the backend and the deadline
/// of the configuration, and returns the exit code. `device` is this rank's: on a GPU "auto" is NCCL among several. Of
/// several ranks each says on stderr why it fails, naming itself, and the first alone what fails on all alike
/// (together.h); one rank throws.
int run_as_rank(const ParallelOptions& options, const std::function<int(Communicator&)>& body, Device device = {});

/// The same with a communicator that is there. It is gone when this returns.
int run_as_rank(std::unique_ptr<Communicator> all, const std::function<int(Communicator&)>& body);

}  // namespace agon
