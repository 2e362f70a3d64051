#include "distributed/names.h"

#include <doctest/doctest.h>

#include <vector>

using namespace agon;

TEST_CASE("names: ranks, alone and in lists") {
  const auto list = [](std::vector<int> ranks) { return listed(ranks); };
  CHECK(named(3, "a") == "rank 3 (a)");
  CHECK(list({5}) == "rank 5");
  CHECK(list({0, 1}) == "ranks 0, 1");
  CHECK(list({0, 1, 2, 3, 7}) == "ranks 0-3, 7");
  CHECK(list({4, 2, 0, 1}) == "ranks 4, 2, 0, 1");
  CHECK(list({1, 3, 4, 5, 6}) == "ranks 1, 3-6");
  CHECK(named_call(57, std::vector<int>{2, 3}) == "call 57 of ranks 2, 3");
}

TEST_CASE("names: durations") {
  CHECK(duration(std::chrono::milliseconds(250)) == "250 ms");
  CHECK(duration(std::chrono::milliseconds(9999)) == "9999 ms");
  CHECK(duration(std::chrono::seconds(60)) == "60 s");
}
