#pragma once
#include <memory>
#include <string>

#include "distributed/communicator.h"

namespace agon {

/// The communicator of all ranks of the job this process belongs to. `backend` is
///   self  one rank, whatever launched it
///   mpi   the ranks that mpirun or srun started
///   nccl  ranks with a GPU each, options.device; with several, mpirun or srun has started them
///   auto  mpi when a launcher (who.h) says that there are several ranks, else self
/// Collective over the ranks. UserError for another name, where MPI is missing, saying what to install, and where it
/// finds other ranks than the launcher says there are.
std::unique_ptr<Communicator> make_communicator(const std::string& backend, const CommunicatorOptions& options = {});

}  // namespace agon
