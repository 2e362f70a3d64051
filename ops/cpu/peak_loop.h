#pragma once

namespace agon::cpu {

inline constexpr int kChains = 12;  // independent ones hide an FMA's latency (4 cycles x 2 ports) and fit 16 registers
inline constexpr int kRounds = 4096;  // the multiplier below 1 keeps values bounded for any number of rounds

/// kChains * kRounds fused multiply-adds on vectors of `lanes` floats.
struct PeakLoop {
  float (*run)();
  int lanes;
};

/// For processors without vector FMA: a multiply and an add, counted as two operations like an FMA.
float run_portable();
/// The widest this processor has; chosen by the build for its kind of processor (CMakeLists.txt).
PeakLoop widest_peak_loop();

}  // namespace agon::cpu
