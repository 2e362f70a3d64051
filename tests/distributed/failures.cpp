// How every kind of ranks fails: all of them, soon, and saying why.

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "distributed/communicator.h"
#include "tests/support/message.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;
using agon::test::contains;

namespace {

constexpr std::chrono::seconds kLong{60};

std::string on_rank(const Communicator& comm) {
  return text("on rank ", comm.rank(), " (", comm.host(comm.rank()), ") failed: ");
}

}  // namespace

TEST_CASE("failures: nobody leaves a barrier before all have come") {
  for (const Run& run : kinds_of_ranks())
    for (int n = 1; n <= 5; ++n) {
      std::atomic<int> came = 0;
      const auto body = [&](Communicator& comm) {
        for (int round = 1; round <= 20; ++round) {
          ++came;
          comm.barrier();
          CHECK(came >= round * n);
          comm.barrier();
          CHECK(came <= round * n);
          comm.barrier();
        }
      };
      run(n, body, kLong);
    }
}

TEST_CASE("failures: when ranks disagree, each gets the error that says what each gave") {
  for (const Run& run : kinds_of_ranks())
    for (int n = 2; n <= 5; ++n) {
      std::atomic<int> told = 0;
      const auto body = [&](Communicator& comm) {
        comm.barrier();
        const Tensor t({comm.rank() == 1 ? 3 : 2}, DType::f32);
        const std::string message = message_of([&] { comm.all_reduce(t); });
        INFO(message);
        CHECK(message.find("all_reduce " + on_rank(comm)) == 0);
        CHECK(
            contains(message, n == 2 ? "call 2 of ranks 0, 1, all_reduce: the ranks disagree" : "call 2 of ranks 0-"));
        CHECK(contains(message, "rank 1: all_reduce of f32 [3]"));
        CHECK(contains(message, ": all_reduce of f32 [2]"));
        CHECK(contains(message_of([&] { comm.barrier(); }), "the ranks disagree"));  // no way back
        ++told;
      };
      CHECK(failure_of(n, body, kLong, run) == "");
      CHECK(told == n);
    }
}

TEST_CASE("failures: ranks that disagree on the operation, the root or the rows, and a rank's own mistake") {
  const Tensor word({1}, DType::i32), rows({2, 3}, DType::f32), none;
  const std::vector<int64_t> even{1, 1}, uneven{2, 0};
  struct Case {
    const char* what;
    std::function<void(Communicator&)> call;
  };
  const Case cases[] = {
      {"rank 0: broadcast of i32 [1] from rank 0; rank 1: barrier",
       [&](Communicator& c) { c.rank() ? c.barrier() : c.broadcast(word, 0); }},
      {"rank 0: broadcast of i32 [1] from rank 0; rank 1: broadcast of i32 [1] from rank 1",
       [&](Communicator& c) { c.broadcast(word, c.rank()); }},
      {"rank 0: all_gather of rows of i32 []; rank 1: all_gather of rows of f32 [3]",
       [&](Communicator& c) { c.all_gather(c.rank() ? rows : word); }},
      {"rank 0: split; rank 1: reduce_scatter of f32 [2, 3]",
       [&](Communicator& c) { c.rank() ? void(c.reduce_scatter(rows)) : void(c.split(0, 0)); }},
      {"all_to_all: rank 1 sends 2 rows to rank 0, which expects 1",
       [&](Communicator& c) { c.all_to_all(rows, c.rank() ? uneven : even, even); }},
      {"all_reduce: rank 1 gave an empty tensor", [&](Communicator& c) { c.all_reduce(c.rank() ? none : rows); }},
      {"all_to_all: rank 1 gave send_rows {}; expected 2 counts of at least 0",
       [&](Communicator& c) { c.all_to_all(rows, c.rank() ? std::vector<int64_t>() : even, even); }},
  };
  for (const Run& run : kinds_of_ranks())
    for (const Case& c : cases) {
      const std::string message = failure_of(2, c.call, kLong, run);
      INFO(message);
      CHECK(contains(message, c.what));
    }
}

TEST_CASE("failures: a rank that throws ends the pending and the future calls of all, in every group") {
  for (const Run& run : kinds_of_ranks())
    for (int n = 1; n <= 5; ++n) {
      std::atomic<int> failed = 0;
      const auto body = [&](Communicator& comm) {
        const auto part = comm.split(comm.rank() == 0 ? 0 : 1, 0);  // rank 0 alone: the others wait in another group
        message_of([&] { comm.barrier(); });  // which fails for those that learn the end before they leave
        if (comm.rank() == 0) throw UserError("no such file");
        for (int i = 0; i < 2; ++i) {
          const std::string message = message_of([&] {
            for (;;) part->barrier();
          });
          INFO(message);
          CHECK(contains(message, text("failed: rank 0 (", comm.host(0), "): no such file")));
          ++failed;
        }
        comm.barrier();
      };
      CHECK_THROWS_WITH_AS(run(n, body, kLong), "no such file", UserError);
      CHECK(failed == 2 * (n - 1));
    }
  for (const Run& run : kinds_of_ranks())
    CHECK_THROWS_AS(run(
                        3,
                        [](Communicator& comm) {
                          if (comm.rank() == 2) throw 7;
                          comm.barrier();
                        },
                        kLong),
                    int);
}

TEST_CASE("failures: abort reaches the other ranks without an exception on its own") {
  for (const Run& run : kinds_of_ranks()) {
    std::atomic<int> failed = 0;
    const auto body = [&](Communicator& comm) {
      if (comm.rank() == 3) return comm.barrier(), comm.abort("the disk is full");
      const std::string message = message_of([&] {
        comm.barrier();
        for (;;) comm.all_reduce(Tensor({4}, DType::f32).zero());
      });
      INFO(message);
      CHECK(contains(message, text(on_rank(comm), "rank 3 (", comm.host(3), "): the disk is full")));
      ++failed;
    };
    run(4, body, kLong);
    CHECK(failed == 3);
  }
}

TEST_CASE("failures: ranks that do not come in time are named, with the call and the step") {
  for (const Run& run : kinds_of_ranks()) {
    std::atomic<int> failed = 0;
    const auto body = [&](Communicator& comm) {
      const auto part = comm.split(comm.rank() / 2, 0);  // 0 and 1, 2 and 3
      comm.barrier();
      comm.at_step(12);
      if (comm.rank() == 3) {  // does not come until the others have given up
        while (failed < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return;
      }
      const std::string message =
          message_of([&] { comm.rank() == 2 ? part->barrier() : comm.all_reduce(Tensor({4}, DType::f32)); });
      INFO(message);
      CHECK(contains(message, text(comm.rank() == 2 ? "barrier" : "all_reduce", " on rank ", comm.rank(), " (",
                                   comm.host(comm.rank()), ") in step 12 failed: ")));
      const bool of_part = contains(message, "call 1 of ranks 2, 3, barrier: waited 3");
      CHECK((of_part || contains(message, "call 3 of ranks 0-3, all_reduce: waited 3")));
      CHECK(contains(
          message, text(" ms for ", of_part ? "" : "rank 2 (" + comm.host(2) + "), ", "rank 3 (", comm.host(3), ')')));
      ++failed;
    };
    failure_of(4, body, std::chrono::milliseconds(300), run);
    CHECK(failed == 3);
  }
}
