#include <doctest/doctest.h>

#include <thread>

#include "distributed/communicator.h"
#include "tests/support/message.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;
using agon::test::contains;

// What all kinds of ranks have in common is in collectives.cpp and failures.cpp.

TEST_CASE("threads: a rank that never comes is named, with the operation") {
  const std::string late = failure_of(
      4,
      [](Communicator& comm) {
        if (comm.rank() % 2 == 0) return comm.all_reduce(Tensor({4}, DType::f32));
        // Not in the call, and not at its end either, until the others have given up.
        CHECK(message_of([&] {
                for (;;) {
                  std::this_thread::sleep_for(std::chrono::milliseconds(1));
                  comm.split(0, 0)->barrier();
                }
              }) != "");
      },
      std::chrono::milliseconds(0));
  CHECK(contains(late, "failed: call 1 of ranks 0-3, "));
  CHECK(contains(late, "waited 0 ms for rank "));
}

TEST_CASE("threads: a rank whose body has returned is not waited for") {
  const std::string gone = failure_of(3, [](Communicator& comm) {
    if (comm.rank() != 1) comm.all_reduce(Tensor({4}, DType::f32));
  });
  CHECK(contains(gone, "call 1 of ranks 0-2, all_reduce: a rank has ended without it: rank "));
}
