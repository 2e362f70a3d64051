#include <immintrin.h>

#include "ops/cpu/peak_loop.h"

namespace agon::cpu {

namespace {

__attribute__((target("avx512f"))) float run_avx512() {
  const __m512 multiplier = _mm512_set1_ps(0.999f), addend = _mm512_set1_ps(1e-3f);
  __m512 x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = _mm512_set1_ps(float(i));
  for (int round = 0; round < kRounds; ++round)
    for (int i = 0; i < kChains; ++i) x[i] = _mm512_fmadd_ps(x[i], multiplier, addend);
  for (int i = 1; i < kChains; ++i) x[0] = _mm512_add_ps(x[0], x[i]);
  return x[0][0];
}
__attribute__((target("avx2,fma"))) float run_avx2() {
  const __m256 multiplier = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(1e-3f);
  __m256 x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = _mm256_set1_ps(float(i));
  for (int round = 0; round < kRounds; ++round)
    for (int i = 0; i < kChains; ++i) x[i] = _mm256_fmadd_ps(x[i], multiplier, addend);
  for (int i = 1; i < kChains; ++i) x[0] = _mm256_add_ps(x[0], x[i]);
  return x[0][0];
}

}  // namespace

PeakLoop widest_peak_loop() {
  if (__builtin_cpu_supports("avx512f")) return {run_avx512, 16};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {run_avx2, 8};
  return {run_portable, 4};
}

}  // namespace agon::cpu
