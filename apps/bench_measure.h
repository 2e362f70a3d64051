#pragma once
#include <functional>
#include <span>

#include "apps/bench.h"
#include "apps/step.h"
#include "core/tensor.h"

namespace agon {

/// Measures what a device can do: on a CPU the register-resident loop of cpu::probe_peak, on a GPU a large bf16 product
/// through ops/linear.h; on both a copy far larger than the caches.
class PeakProbe {
 public:
  explicit PeakProbe(const BenchOptions& options);
  /// Takes about 0.02 s longer on a CPU.
  BenchPeak operator()(double seconds = 0.05);

 private:
  double cpu_copy();
  double gpu_product();
  double gpu_copy();

  BenchOptions options_;
  Tensor left_, right_;  // [n, n] bf16, GPU only
  Tensor from_, to_;
  Step arena_;
};

/// The sum over the options' ranks. Collective over them, as what follows is.
BenchPeak peak_of_ranks(BenchPeak here, const BenchOptions& options);

/// Times cases, the rounds of one between those of the others: warm-up, then rounds of as many iterations as make
/// options.seconds together, a probe before each; on many ranks an iteration takes as long as on the slowest. Prepared
/// inputs are gone when it returns. What a case throws becomes BenchResult::error, on one rank.
std::vector<BenchResult> measure(std::span<const BenchCase> cases, const BenchOptions& options, PeakProbe& probe);

/// Bytes of the last cache before memory.
int64_t cache_bytes(Device device);

}  // namespace agon
