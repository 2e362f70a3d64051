#include "distributed/message_world.h"

#include <doctest/doctest.h>

#include <atomic>

#include "tests/support/message.h"
#include "tests/support/ranks.h"
#include "tests/support/said.h"

using namespace agon;
using namespace agon::testing;
using agon::test::contains;

TEST_CASE("message_world: a rank that is asked to stop and goes on waiting says for whom, once") {
  Said said;
  const CommunicatorOptions options{.asked_to_stop = [] { return true; }};
  run_on_links(
      2,
      [&](Communicator& comm) {
        comm.at_step(3);
        while (comm.rank() == 1 && !said.something) std::this_thread::yield();
        comm.barrier();
        comm.barrier();
      },
      options);
  CHECK(said.str().find("agon: asked to stop, but rank 0 (host-0) in step 3, in call 1 of ranks 0, 1, barrier, has "
                        "waited ") == 0);
  CHECK(said.str().find(" ms for rank 1 (host-1)\n") == said.str().size() - 24);
}

TEST_CASE("message_world: a rank that has done its work does not fit a call of the others") {
  const std::string message = message_of([] {
    run_on_links(3, [](Communicator& comm) {
      if (comm.rank() != 1) comm.all_reduce(Tensor({4}, DType::f32).zero());
    });
  });
  CHECK(contains(message, "the ranks disagree; ranks 0, 2: all_reduce of f32 [4]; rank 1: end"));
}

TEST_CASE("message_world: a started call that is dropped ends the work of all") {
  std::atomic<int> failed = 0;
  const auto body = [&](Communicator& comm) {
    comm.barrier();
    const Tensor t = Tensor({1000}, DType::f32).zero();
    {
      const auto started = comm.start_all_reduce(t);
      if (comm.rank() != 0) started->finish();
    }
    comm.barrier();
  };
  for (int n = 2; n <= 4; ++n) {
    const std::string message = message_of([&] {
      run_on_links(n, [&](Communicator& comm) {
        try {
          body(comm);
        } catch (const Error& e) {
          ++failed;
          throw;
        }
      });
    });
    CHECK(contains(message, "all_reduce: was started and not finished"));
    CHECK(failed.exchange(0) == n);
  }
}

TEST_CASE("message_world: late ranks and what the others did are both named") {
  const auto body = [](Communicator& comm) {
    if (comm.rank() == 0) comm.barrier();
    if (comm.rank() == 1) comm.all_reduce(Tensor({4}, DType::f32).zero());
    if (comm.rank() == 2)
      for (;;) {
        std::this_thread::yield();
        comm.split(0, 0);  // comes late, and is told at once
      }
  };
  const CommunicatorOptions options{.deadline = std::chrono::milliseconds(200)};
  const std::string message = message_of([&] {
    run_on_links(
        3,
        [&](Communicator& comm) {
          if (comm.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(400));
          body(comm);
        },
        options);
  });
  INFO(message);
  CHECK(contains(message,
                 "for rank 2 (host-2); of those that came, the ranks disagree; rank 0: barrier; rank 1: "
                 "all_reduce of f32 [4]"));
}

TEST_CASE("message_world: scratch is used again when it was let go") {
  MessageWorld world(std::make_unique<ThreadLink>(std::make_shared<PostOffice>(1), 0), {});
  auto a = world.scratch(1000), b = world.scratch(1000);
  CHECK(a != b);
  const void* const address = a.get();
  a.reset();
  CHECK(world.scratch(900).get() == address);
  CHECK(world.scratch(100000).get() != address);
}
