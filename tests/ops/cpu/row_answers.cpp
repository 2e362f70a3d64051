#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu/rows.h"

using namespace agon;

TEST_CASE("rows: softplus is right to 3e-7 of it, from far below 0 to far above") {
  for (double x = -95; x < 95; x += 0.0137) {
    const float v = float(x);
    const double expected = std::max(double(v), 0.0) + std::log1p(std::exp(-std::abs(double(v))));
    for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) {
      const double found = set->f32.softplus_sum(&v, 1);
      CAPTURE(v);
      REQUIRE(std::abs(found - expected) <= 3e-7 * expected + 1e-38);
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) {
    CHECK(std::isnan(set->f32.softplus_sum(&nan, 1)));
    CHECK(std::isnan(set->f32.relu_sum(&nan, 1)));
  }
}
