#include "distributed/make.h"

#include "distributed/messages.h"
#include "distributed/mpi.h"
#include "distributed/who.h"

namespace agon {

namespace {

std::unique_ptr<Communicator> make_mpi_communicator(const Who& who, const CommunicatorOptions& options) {
  auto link = make_mpi_link(open_mpi());
  require(who.launcher.empty() || link->size() == who.size, who.launcher, " says that there are ", who.size,
          " ranks, MPI that there are ", link->size(),
          ": expected the launcher to be of the same MPI (srun: --mpi=pmix)");
  return make_message_communicator(std::move(link), options);
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(const std::string& backend, const CommunicatorOptions& options) {
  if (backend == "self") return make_self_communicator();
  if (backend == "mpi") return make_mpi_communicator(who_am_i(), options);
  require(backend != "nccl", "parallel.backend = nccl is not in this build: expected auto, self or mpi");
  require(backend == "auto", "parallel.backend = ", backend, " is none: expected auto, self, mpi or nccl");
  const Who who = who_am_i();
  if (who.size == 1) return make_self_communicator();
  require(who.launcher != "torchrun", "torchrun has started ", who.size,
          " ranks, and nothing says what they exchange through: expected parallel.backend = nccl, or mpirun, srun or "
          "agon launch");
  return make_mpi_communicator(who, options);
}

}  // namespace agon
