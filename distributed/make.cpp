#include "distributed/make.h"

#include <cstdlib>

#include "distributed/messages.h"
#include "distributed/mpi.h"

namespace agon {

namespace {

bool launched_with_others() {
  const char* const size = std::getenv("OMPI_COMM_WORLD_SIZE");
  return size && std::atoi(size) > 1;
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(const std::string& backend, const CommunicatorOptions& options) {
  if (backend == "auto") return make_communicator(launched_with_others() ? "mpi" : "self", options);
  if (backend == "self") return make_self_communicator();
  require(backend != "nccl", "parallel.backend = nccl is not in this build: expected auto, self or mpi");
  require(backend == "mpi", "parallel.backend = ", backend, " is none: expected auto, self, mpi or nccl");
  return make_message_communicator(make_mpi_link(open_mpi()), options);
}

}  // namespace agon
