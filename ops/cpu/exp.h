#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace agon::cpu {

/// e^x in f32 within 2 units in the last place over the whole range, subnormal results included; inf, 0 and NaN where
/// std::exp gives them. Free of branches and calls, so loops over it vectorise; plain products and sums, so the bits
/// are the same on every instruction set.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is its Taylor series to r^7 (the rest is below 5.3e-9), and 2^n is
/// multiplied in as two factors, each of which is a normal number.
constexpr float exp(float x) {
  constexpr float kToInteger = 0x1.8p23f;  // adding it rounds to an integer, which is then in the low bits
  float clamped = x < -104.f ? -104.f : x;
  clamped = clamped > 89.f ? 89.f : clamped;
  const float shifted = clamped * 1.44269504f + kToInteger;
  const float n = shifted - kToInteger;
  const float r = clamped - n * 0x1.63p-1f - n * -2.12194440e-4f;  // ln 2 in two parts, the first times n being exact
  float p = 1.f / 5040;
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.f;
  const int32_t exponent = int32_t(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kToInteger));
  const int32_t half = exponent >> 1;
  return p * std::bit_cast<float>(uint32_t(half + 127) << 23) *
         std::bit_cast<float>(uint32_t(exponent - half + 127) << 23);
}

inline double exp(double x) { return std::exp(x); }

}  // namespace agon::cpu
