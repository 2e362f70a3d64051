#include "distributed/make.h"

#include "distributed/messages.h"
#include "distributed/mpi.h"
#include "distributed/nccl.h"
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

/// What lies on the host travels by messages too, and those need MPI.
void refuse_torchrun(const Who& who) {
  require(who.launcher != "torchrun", "torchrun has started ", who.size,
          " ranks, which cannot exchange what lies on the host: expected mpirun, srun or agon launch");
}

std::unique_ptr<Communicator> make_nccl(const Who& who, const CommunicatorOptions& options) {
  require(options.device.kind == Device::cuda,
          "parallel.backend = nccl moves what is on GPUs: expected device = cuda, found ", options.device);
  NcclOptions nccl;
  nccl.device = options.device;
  nccl.deadline = options.deadline;
  if (who.size > 1) {
    refuse_torchrun(who);
    nccl.control = make_mpi_communicator(who, options);
  } else {
    nccl.control = make_self_communicator();
  }
  return make_nccl_communicator(std::move(nccl));
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(const std::string& backend, const CommunicatorOptions& options) {
  if (backend == "self") return make_self_communicator();
  if (backend == "mpi") return make_mpi_communicator(who_am_i(), options);
  if (backend == "nccl") return make_nccl(who_am_i(), options);
  require(backend == "auto", "parallel.backend = ", backend, " is none: expected auto, self, mpi or nccl");
  const Who who = who_am_i();
  if (who.size == 1) return make_self_communicator();
  refuse_torchrun(who);
  return make_mpi_communicator(who, options);
}

}  // namespace agon
