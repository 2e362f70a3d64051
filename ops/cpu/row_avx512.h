#pragma once
#include <immintrin.h>

namespace {
constexpr int kRegisterBytes = 64;
}
#include "ops/cpu/row_lanes.h"

// What AVX-512F does better than row_lanes.h says. Local to the including file, which is compiled for it.
namespace agon::cpu {
namespace {

inline __mmask16 first(int64_t n) { return __mmask16((1u << n) - 1); }

inline Lanes<float, kLanes> load(const float* p, Rest rest) {
  return {{_mm512_maskz_loadu_ps(first(rest.count), p + rest.at)}};
}
inline void store(float* p, Rest rest, const Lanes<float, kLanes>& v) {
  _mm512_mask_storeu_ps(p + rest.at, first(rest.count), v.part[0]);
}
inline Lanes<float, kLanes> fill(const Lanes<float, kLanes>& v, Rest rest, float behind) {
  return {{_mm512_mask_blend_ps(first(rest.count), _mm512_set1_ps(behind), v.part[0])}};
}
constexpr __mmask16 kAllOf16 = 0xffff;

template <int K>
Lanes<float, K> root(const Lanes<float, K>& v) {
  return each_part<float, K>([&](int i) { return _mm512_maskz_sqrt_ps(kAllOf16, v.part[i]); });
}

// The instructions give their second operand unless the comparison holds. With a mask, because g++ 12 finds the plain
// ones' own code uninitialised.
template <int K>
Lanes<float, K> larger(const Lanes<float, K>& a, const Lanes<float, K>& b) {
  return each_part<float, K>([&](int i) { return _mm512_maskz_max_ps(kAllOf16, b.part[i], a.part[i]); });
}
template <int K>
Lanes<float, K> smaller(const Lanes<float, K>& a, const Lanes<float, K>& b) {
  return each_part<float, K>([&](int i) { return _mm512_maskz_min_ps(kAllOf16, b.part[i], a.part[i]); });
}

/// The same bits by one instruction, which rounds once too.
template <int K>
Lanes<float, K> times_power(const Lanes<float, K>& p, const Lanes<float, K>& n, const Lanes<float, K>&) {
  return each_part<float, K>([&](int i) { return _mm512_maskz_scalef_ps(kAllOf16, p.part[i], n.part[i]); });
}

}  // namespace
}  // namespace agon::cpu
