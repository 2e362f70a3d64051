#include "core/dtype.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

using namespace agon;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

uint32_t bits(float f) { return std::bit_cast<uint32_t>(f); }
float from_bits(uint32_t u) { return std::bit_cast<float>(u); }

/// The half type nearest to x by search among its neighbours, ties to the even pattern: slow and obvious. `largest`
/// is the pattern of the largest finite number.
template <class Half>
uint16_t nearest(double x, uint16_t largest) {
  const auto value = [&](uint16_t pattern) {
    if (pattern > largest) {  // what would follow the largest finite number: from there on infinity is nearer
      Half a, b;
      a.bits = largest;
      b.bits = uint16_t(largest - 1);
      return 2 * double(float(a)) - double(float(b));
    }
    Half h;
    h.bits = pattern;
    return double(float(h));
  };
  uint16_t low = 0, high = uint16_t(largest + 1);  // positive patterns are in the order of their values
  const double a = std::abs(x);
  if (a >= value(high)) low = high;
  while (low + 1 < high) {
    const auto middle = uint16_t((low + high) / 2);
    (value(middle) <= a ? low : high) = middle;
  }
  if (low < high) {
    const double below = a - value(low), above = value(high) - a;
    if (above < below || (above == below && low % 2)) low = high;
  }
  return uint16_t(low | (std::signbit(x) ? 0x8000 : 0));
}

uint16_t nearest_bf16(double x) { return nearest<bf16>(x, 0x7f7f); }
uint16_t nearest_f16(double x) { return nearest<f16>(x, 0x7bff); }

}  // namespace

TEST_CASE("dtype: all 65536 bf16 patterns survive a float and a double") {
  for (uint32_t p = 0; p < 65536; ++p) {
    bf16 h;
    h.bits = uint16_t(p);
    const float f = h;
    REQUIRE(bits(f) == p << 16);
    if (f != f)
      REQUIRE(bf16(f).bits == 0x7fff);
    else
      REQUIRE((bf16(f).bits == p && bf16(double(f)).bits == p));
  }
}

TEST_CASE("dtype: all 65536 f16 patterns survive a float and a double, and have the value of the standard") {
  for (uint32_t p = 0; p < 65536; ++p) {
    f16 h;
    h.bits = uint16_t(p);
    const float f = h;
    const int exponent = int(p >> 10) & 31, mantissa = int(p) & 1023;
    if (exponent == 31 && mantissa) {
      REQUIRE(f != f);
      const f16 again(f);
      REQUIRE((float(again) != float(again) && (again.bits & 0x8000) == (p & 0x8000)));
      continue;
    }
    const double size = exponent == 31 ? kInfinity
                        : exponent     ? std::ldexp(1024 + mantissa, exponent - 25)
                                       : std::ldexp(mantissa, -24);
    REQUIRE(double(f) == (p & 0x8000 ? -size : size));
    REQUIRE((f16(f).bits == p && f16(double(f)).bits == p));
  }
}

TEST_CASE("dtype: between neighbours the nearer one, of two the even one") {
  // For every pair of neighbouring patterns: the middle, and the float just below and just above it.
  const auto pairs = [](auto half, uint16_t last) {
    using Half = decltype(half);
    for (uint16_t p = 0; p < last; ++p)
      for (int sign : {0x0000, 0x8000}) {
        Half a, b;
        a.bits = uint16_t(p | sign);
        b.bits = uint16_t((p + 1) | sign);
        const double middle = (double(float(a)) + double(float(b))) / 2;
        const uint16_t even = p % 2 ? b.bits : a.bits;
        REQUIRE(Half(float(middle)).bits == even);  // a float holds the middle
        REQUIRE(Half(middle).bits == even);
        REQUIRE(Half(std::nextafter(float(middle), float(a))).bits == a.bits);
        REQUIRE(Half(std::nextafter(float(middle), float(b))).bits == b.bits);
        REQUIRE(Half(std::nextafter(middle, double(float(a)))).bits == a.bits);
        REQUIRE(Half(std::nextafter(middle, double(float(b)))).bits == b.bits);
      }
  };
  pairs(bf16(), 0x7f7f);
  pairs(f16(), 0x7bff);
}

TEST_CASE("dtype: random floats and doubles of all sizes against a search for the nearest") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const float f = from_bits(uint32_t(random()));
    if (f == f && std::isfinite(f)) {
      REQUIRE(bf16(f).bits == nearest_bf16(f));
      REQUIRE(f16(f).bits == nearest_f16(f));
    }
    const double d =
        std::ldexp(double(random()) * (i % 2 ? 1 : -1), int(random() % 360) - 260);  // all of f32 and beyond
    REQUIRE(bf16(d).bits == nearest_bf16(d));
    REQUIRE(f16(d).bits == nearest_f16(d));
  }
}

TEST_CASE("dtype: the ends of the ranges") {
  CHECK(bf16(kInfinity).bits == 0x7f80);
  CHECK(bf16(-kInfinity).bits == 0xff80);
  CHECK(bf16(kNaN).bits == 0x7fff);
  CHECK(bf16(-0.0f).bits == 0x8000);
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bf16(from_bits(0x7f7f7fff)).bits == 0x7f7f);
  CHECK(bf16(1e300).bits == 0x7f80);
  CHECK(bf16(-1e300).bits == 0xff80);
  CHECK(bf16(1e-300).bits == 0);
  CHECK(bf16(double(kNaN)).bits == 0x7fff);
  CHECK(f16(65504.f).bits == 0x7bff);
  CHECK(f16(std::nextafter(65520.f, 0.f)).bits == 0x7bff);
  CHECK(f16(65520.f).bits == 0x7c00);
  CHECK(f16(-kInfinity).bits == 0xfc00);
  CHECK(f16(-0.0f).bits == 0x8000);
  CHECK(f16(0x1p-24f).bits == 1);
  CHECK(f16(0x1p-25f).bits == 0);  // a tie, to even
  CHECK(f16(std::nextafter(0x1p-25f, 1.f)).bits == 1);
  CHECK(f16(from_bits(1)).bits == 0);
}

TEST_CASE("dtype: rounding to odd keeps what is exact and marks what is not") {
  CHECK(rounded_to_odd(1.5) == 1.5f);
  CHECK(rounded_to_odd(1 + 0x1p-24) == 1 + 0x1p-23f);
  CHECK(rounded_to_odd(1 + 0x1p-23 + 0x1p-40) == 1 + 0x1p-23f);
  CHECK(rounded_to_odd(-1 - 0x1p-30) == -1 - 0x1p-23f);
  CHECK(rounded_to_odd(1e300) == std::numeric_limits<float>::max());
  CHECK(rounded_to_odd(-1e-300) == -std::numeric_limits<float>::denorm_min());
  CHECK(rounded_to_odd(double(kInfinity)) == kInfinity);
}

TEST_CASE("dtype: names, sizes and types go together") {
  CHECK(text(DType::f32, ' ', DType::bf16, ' ', DType::f16, ' ', DType::f64, ' ', DType::i32, ' ', DType::u8) ==
        "f32 bf16 f16 f64 i32 u8");
  CHECK(size_of(dtype_of<float>) == sizeof(float));
  CHECK(size_of(dtype_of<double>) == sizeof(double));
  CHECK(size_of(dtype_of<bf16>) == sizeof(bf16));
  CHECK(size_of(dtype_of<f16>) == sizeof(f16));
  CHECK(size_of(dtype_of<int32_t>) == sizeof(int32_t));
  CHECK(size_of(dtype_of<uint8_t>) == sizeof(uint8_t));
  CHECK(accumulator_dtype(DType::bf16) == DType::f32);
  CHECK(accumulator_dtype(DType::f64) == DType::f64);
}

TEST_CASE("dtype: visitors see the type behind a dtype and refuse the others") {
  const auto size = []<class T>() { return sizeof(T); };
  CHECK(visit_float(DType::bf16, size) == 2);
  CHECK(visit_float(DType::f32, size) == 4);
  CHECK(visit_accumulator(DType::f64, size) == 8);
  CHECK_THROWS_AS(visit_float(DType::f16, size), Error);
  CHECK_THROWS_AS(visit_float(DType::i32, size), Error);
  CHECK_THROWS_AS(visit_accumulator(DType::bf16, size), Error);
}
