#include "ops/cpu/peak.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "core/parallel.h"

namespace agon::cpu {

namespace {

constexpr int kChains = 12;  // independent chains hide the latency of an FMA (4 cycles x 2 ports), and fit 16 registers
constexpr int kRounds = 4096;  // the multiplier below 1 keeps values bounded for any number of rounds

#if defined(__x86_64__)
__attribute__((target("avx512f"), optimize("O3", "unroll-loops"))) float run_avx512() {
  const __m512 multiplier = _mm512_set1_ps(0.999f), addend = _mm512_set1_ps(1e-3f);
  __m512 x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = _mm512_set1_ps(float(i));
  for (int round = 0; round < kRounds; ++round)
    for (int i = 0; i < kChains; ++i) x[i] = _mm512_fmadd_ps(x[i], multiplier, addend);
  for (int i = 1; i < kChains; ++i) x[0] = _mm512_add_ps(x[0], x[i]);
  return x[0][0];
}
__attribute__((target("avx2,fma"), optimize("O3", "unroll-loops"))) float run_avx2() {
  const __m256 multiplier = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(1e-3f);
  __m256 x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = _mm256_set1_ps(float(i));
  for (int round = 0; round < kRounds; ++round)
    for (int i = 0; i < kChains; ++i) x[i] = _mm256_fmadd_ps(x[i], multiplier, addend);
  for (int i = 1; i < kChains; ++i) x[0] = _mm256_add_ps(x[0], x[i]);
  return x[0][0];
}
#endif

/// For processors without vector FMA: one multiply and one add, counted as two operations like an FMA.
float run_generic() {
  float x[kChains * 4];
  for (int i = 0; i < kChains * 4; ++i) x[i] = float(i);
  for (int round = 0; round < kRounds; ++round)
    for (float& v : x) v = v * 0.999f + 1e-3f;
  for (int i = 1; i < kChains * 4; ++i) x[0] += x[i];
  return x[0];
}

}  // namespace

double probe_peak(double seconds) {
  float (*run)() = run_generic;
  int lanes = 4;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    run = run_avx512, lanes = 16;
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    run = run_avx2, lanes = 8;
#endif
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  const int n = threads();
  std::vector<float> sink(size_t(n) * 64);  // results on cache lines of their own
  const auto start = Clock::now();
  double best = 0;
  do {
    constexpr int kRepeats = 64;
    const auto since = Clock::now();
    parallel_tasks(n, [&](int64_t i) {
      for (int r = 0; r < kRepeats; ++r) sink[size_t(i) * 64] += run();
    });
    best = std::max(best, 2.0 * lanes * kChains * kRounds * kRepeats * n / elapsed(since));
  } while (elapsed(start) < seconds);
  return std::isfinite(sink[0]) ? best : 0;
}

}  // namespace agon::cpu
