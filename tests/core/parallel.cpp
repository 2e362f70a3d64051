#include "core/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace agon;

namespace {

/// Sets the number of threads until the end of the scope.
struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(0); }
};

}  // namespace

TEST_CASE("parallel: every task once, whatever the number of threads") {
  for (int n : {1, 2, 3, 8}) {
    const Threads threads_now(n);
    CHECK(threads() == n);
    for (int64_t tasks : {0, 1, 2, 3, 17, 1000}) {
      std::vector<int> times(size_t(tasks), 0);
      parallel_tasks(tasks, [&](int64_t i) { ++times[size_t(i)]; });
      for (int t : times) REQUIRE(t == 1);
    }
  }
  CHECK(threads() >= 1);
}

TEST_CASE("parallel: ranges cover everything in pieces that depend on n and grain alone") {
  for (int n : {1, 3}) {
    const Threads threads_now(n);
    for (int64_t size : {0, 1, 9, 10, 11, 95}) {
      std::vector<int64_t> ends(size_t(size), -1);
      parallel_ranges(size, 10, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ends[size_t(i)] = end;
      });
      for (int64_t i = 0; i < size; ++i) REQUIRE(ends[size_t(i)] == std::min(size, (i / 10 + 1) * 10));
    }
  }
}

TEST_CASE("parallel: an exception comes out here, and the next loop works") {
  for (int n : {1, 2, 4}) {
    const Threads threads_now(n);
    for (int64_t bad : {0, 7, 99}) {
      CHECK_THROWS_WITH_AS(parallel_tasks(100,
                                          [&](int64_t i) {
                                            if (i == bad) throw std::runtime_error("task");
                                          }),
                           "task", std::runtime_error);
      std::atomic<int> sum = 0;
      parallel_tasks(100, [&](int64_t i) { sum += int(i); });
      CHECK(sum == 4950);
    }
    CHECK_THROWS_AS(parallel_tasks(50, [](int64_t i) { throw int(i); }), int);  // all of them at once
  }
}

TEST_CASE("parallel: a loop inside a task runs, on that thread") {
  const Threads threads_now(3);
  std::atomic<int> sum = 0, elsewhere = 0;
  parallel_tasks(8, [&](int64_t i) {
    const auto me = std::this_thread::get_id();
    parallel_tasks(5, [&](int64_t j) {
      sum += int(i * 5 + j);
      elsewhere += std::this_thread::get_id() != me;
    });
  });
  CHECK(sum == 780);
  CHECK(elsewhere == 0);
}

TEST_CASE("parallel: callers on several threads, with exceptions, while the number of threads changes") {
  std::atomic<bool> stop = false;
  std::thread changer([&] {
    for (int n = 1; !stop; n = n % 4 + 1) {
      set_threads(n);
      std::this_thread::yield();
    }
    set_threads(0);
  });
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 150; ++round) {
        std::vector<int64_t> out(64, 0);
        bool thrown = false;
        try {
          parallel_tasks(64, [&](int64_t i) {
            if (round % 10 == c && i == 40) throw 1;
            out[size_t(i)] = i + round;
          });
        } catch (int) { thrown = true; }
        if (thrown != (round % 10 == c)) ++wrong;
        if (!thrown && std::accumulate(out.begin(), out.end(), int64_t(0)) != 2016 + 64 * round) ++wrong;
      }
    });
  for (auto& c : callers) c.join();
  stop = true;
  changer.join();
  CHECK(wrong == 0);
}

TEST_CASE("parallel: many short loops one after the other, with pauses long enough to fall asleep") {
  const Threads threads_now(3);
  int64_t total = 0;
  for (int round = 0; round < 3000; ++round) {
    int64_t parts[3] = {};
    parallel_tasks(3, [&](int64_t i) { parts[i] = round + i; });
    total += parts[0] + parts[1] + parts[2];
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  CHECK(total == 3 * (2999 * 3000 / 2) + 3 * 3000);
}
