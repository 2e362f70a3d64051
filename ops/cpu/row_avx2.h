#pragma once
#include <immintrin.h>

namespace {
constexpr int kRegisterBytes = 32;
}
#include "ops/cpu/row_lanes.h"

// What AVX2 does better than row_lanes.h says. Local to the including file, which is compiled for it.
namespace agon::cpu {
namespace {

template <int K>
Lanes<float, K> root(const Lanes<float, K>& v) {
  return each_part<float, K>([&](int i) { return _mm256_sqrt_ps(v.part[i]); });
}

// The instructions give their second operand unless the comparison holds.
template <int K>
Lanes<float, K> larger(const Lanes<float, K>& a, const Lanes<float, K>& b) {
  return each_part<float, K>([&](int i) { return _mm256_max_ps(b.part[i], a.part[i]); });
}
template <int K>
Lanes<float, K> smaller(const Lanes<float, K>& a, const Lanes<float, K>& b) {
  return each_part<float, K>([&](int i) { return _mm256_min_ps(b.part[i], a.part[i]); });
}

}  // namespace
}  // namespace agon::cpu
