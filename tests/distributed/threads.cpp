#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "distributed/communicator.h"
#include "tests/support/message.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;
using agon::test::contains;

// What all kinds of ranks have in common is in collectives.cpp and failures.cpp.

TEST_CASE("threads: without a deadline nobody is waited for") {
  std::atomic<int> failed = 0;
  const std::string late = failure_of(
      2,
      [&](Communicator& comm) {
        while (comm.rank() == 1 && failed == 0) std::this_thread::yield();
        const std::string message = message_of([&] { comm.barrier(); });
        ++failed;
        throw Error(message);
      },
      std::chrono::milliseconds(0));
  CHECK(contains(late, "failed: call 1 of ranks 0, 1, barrier: waited 0 ms for rank 1 ("));
}

TEST_CASE("threads: a rank whose body has returned is not waited for") {
  const std::string gone = failure_of(3, [](Communicator& comm) {
    if (comm.rank() != 1) comm.all_reduce(Tensor({4}, DType::f32));
  });
  CHECK(contains(gone, "call 1 of ranks 0-2, all_reduce: a rank has ended without it: rank "));
}
