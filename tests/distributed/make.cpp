#include "distributed/make.h"

#include <doctest/doctest.h>

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

TEST_CASE("make: one rank alone, asked for or because nothing launched more") {
  for (const char* backend : {"self", "auto"}) {
    const auto comm = make_communicator(backend);
    CHECK(comm->size() == 1);
    comm->barrier();
  }
}

TEST_CASE("make: a backend that is none") {
  check_contains(user_error([] { make_communicator("gloo"); }),
                 {"parallel.backend = gloo", "expected auto, self, mpi"});
  check_contains(user_error([] { make_communicator("nccl"); }), {"nccl is not in this build"});
}
