#include "ops/cpu/exp.h"

#include <doctest/doctest.h>

#include <limits>

using namespace agon;

TEST_CASE("exp: within 2 units in the last place over the whole range") {
  double worst = 0;
  float worst_at = 0;
  for (uint32_t bits = 0; bits < 0xff800000u; bits += 4099) {  // every sign and exponent
    const float x = std::bit_cast<float>(bits);
    if (!std::isfinite(x)) continue;
    const float y = cpu::exp(x);
    const double exact = std::exp(double(x));
    if (exact > double(std::numeric_limits<float>::max())) {
      CHECK_MESSAGE(y >= std::numeric_limits<float>::max(), x);
      continue;
    }
    const double unit = std::max(0x1p-149, std::ldexp(1.0, std::ilogb(std::max(exact, 1e-300)) - 23));
    const double error = std::abs(double(y) - exact) / unit;
    if (error > worst) worst = error, worst_at = x;
  }
  CAPTURE(worst_at);
  CHECK(worst < 2);
}

TEST_CASE("exp: exact at 0, subnormal results, ends and NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(cpu::exp(0.f) == 1);
  CHECK(cpu::exp(-0.f) == 1);
  CHECK(cpu::exp(-infinity) == 0);
  CHECK(cpu::exp(infinity) == infinity);
  CHECK(cpu::exp(89.f) == infinity);
  CHECK(cpu::exp(-100.f) > 0);
  CHECK(cpu::exp(-104.f) == 0);
  CHECK(std::isnan(cpu::exp(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(cpu::exp(-std::numeric_limits<float>::quiet_NaN())));
  CHECK(cpu::exp(1.5) == std::exp(1.5));
}
