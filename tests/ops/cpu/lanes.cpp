#include "ops/cpu/lanes.h"

#include <doctest/doctest.h>

#include <limits>

using namespace agon;

TEST_CASE("lanes: sums and maxima of every length") {
  for (int64_t n = 0; n < 70; ++n) {
    CHECK(cpu::sum_lanes<double>(n, [](int64_t i) { return double(i + 1); }) == double(n * (n + 1) / 2));
    for (int64_t top = 0; top < n; ++top)
      CHECK(cpu::max_lanes<float>(-std::numeric_limits<float>::infinity(), n,
                                  [=](int64_t i) { return i == top ? 5.f : -float(i); }) == 5);
  }
  CHECK(cpu::max_lanes<float>(3, 2, [](int64_t) { return 1.f; }) == 3);
}
