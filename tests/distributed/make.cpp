#include "distributed/make.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

namespace {

/// Variables of the environment while it lives.
class Launched {
 public:
  explicit Launched(std::vector<std::pair<const char*, const char*>> variables) : variables_(std::move(variables)) {
    for (const auto& [name, value] : variables_) setenv(name, value, 1);
  }
  ~Launched() {
    for (const auto& [name, value] : variables_) unsetenv(name);
  }

 private:
  std::vector<std::pair<const char*, const char*>> variables_;
};

}  // namespace

// Several ranks of MPI are in tests/mpi.sh.

TEST_CASE("make: one rank alone, asked for or because nothing launched more") {
  for (const char* backend : {"self", "auto"}) {
    const auto comm = make_communicator(backend);
    CHECK(comm->size() == 1);
    comm->barrier();
  }
  const Launched alone({{"OMPI_COMM_WORLD_RANK", "0"},
                        {"OMPI_COMM_WORLD_SIZE", "1"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                        {"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  CHECK(make_communicator("auto")->size() == 1);
}

TEST_CASE("make: a backend that is none") {
  check_contains(user_error([] { make_communicator("gloo"); }),
                 {"parallel.backend = gloo", "expected auto, self, mpi"});
}

TEST_CASE("make: several ranks of a launcher that does not say what they exchange through") {
  const Launched several({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "2"}});
  check_contains(user_error([] { make_communicator("auto"); }),
                 {"torchrun has started 2 ranks", "expected mpirun, srun or agon launch"});
  check_contains(user_error([] { make_communicator("nccl"); }),
                 {"torchrun has started 2 ranks", "expected mpirun, srun or agon launch"});
  CHECK(make_communicator("self")->size() == 1);
}

TEST_CASE("make: ranks by NCCL want GPUs") {
  CommunicatorOptions options;
  options.device = {};
  check_contains(user_error([&] { make_communicator("nccl", options); }), {"expected device = cuda, found cpu"});
}
