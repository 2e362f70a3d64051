#include "ops/cpu/peak.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/peak_loop.h"

namespace agon::cpu {

float run_portable() {
  float x[kChains * 4];
  for (int i = 0; i < kChains * 4; ++i) x[i] = float(i);
  for (int round = 0; round < kRounds; ++round)
    for (float& v : x) v = v * 0.999f + 1e-3f;
  for (int i = 1; i < kChains * 4; ++i) x[0] += x[i];
  return x[0];
}

double probe_peak(double seconds) {
  const PeakLoop loop = widest_peak_loop();
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
      for (int r = 0; r < kRepeats; ++r) sink[size_t(i) * 64] += loop.run();
    });
    best = std::max(best, 2.0 * loop.lanes * kChains * kRounds * kRepeats * n / elapsed(since));
  } while (elapsed(start) < seconds);
  return std::isfinite(sink[0]) ? best : 0;
}

}  // namespace agon::cpu
