#include "distributed/wait_reporter.h"

#include <doctest/doctest.h>

#include <atomic>

#include "tests/support/said.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("wait_reporter: says what a rank that is asked to stop waits for, once") {
  Said said;
  {
    WaitReporter reporter([] { return true; });
    reporter.waits(WaitReporter::Clock::now() - std::chrono::seconds(20), "this rank", "that rank");
    while (!said.something) std::this_thread::yield();
    reporter.waits_no_more();
    reporter.waits(WaitReporter::Clock::now() - std::chrono::seconds(20), "this rank", "that rank");
  }
  CHECK(said.str() == "agon: asked to stop, but this rank has waited 20 s for that rank\n");
}

TEST_CASE("wait_reporter: says nothing of waits that have ended, nor unless asked") {
  Said said;
  std::atomic<int> looks = 0;
  {
    WaitReporter never([&] { return ++looks < 0; });
    never.waits(WaitReporter::Clock::now() - std::chrono::seconds(20), "this rank", "that rank");
    WaitReporter ended([] { return true; });
    ended.waits(WaitReporter::Clock::now() - std::chrono::seconds(20), "this rank", "that rank");
    ended.waits_no_more();
    while (looks < 10) std::this_thread::yield();  // longer than it takes to say something
  }
  CHECK(said.str() == "");
}
