#pragma once
#include <span>

#include "core/options.h"
#include "distributed/communicator.h"

namespace agon {

/// The smallest scores that are chosen where a choice must not depend on later tokens: a pair counts iff its score is
/// at least its expert's threshold (expert choice), or the layer's (unified). State: saved, restored, not trained.
/// ROUTING.md section 6.
struct Thresholds {
  Tensor value;                  // [E], or [1] for the layer; f32 (f64); NaN: not known yet
  double experts_per_token = 0;  // the budget that the realised mean is to meet
  double decay = 0.99;           // of the moving average

  Thresholds() = default;
  /// Of nothing learned yet.
  Thresholds(int64_t count, DType dtype, double experts_per_token, double decay);

  /// Waits for the device.
  bool known() const;
  /// Moves towards the budget's cut through all scores of a step: those of this rank's micro-batches, [T, E] each, and
  /// of all ranks of `everyone`, pooled. The first cut is taken whole. Collective.
  void learn(std::span<const Tensor> scores, Communicator& everyone);
};

/// The n-th largest value of each column of the matrices [T, E] of all ranks together, n = floor(k / E * T), or,
/// pooled, of all their values, n = floor(k T), with T the tokens of all: -> [E] or [1] of their dtype, the same on all
/// ranks. n is at least 1 and at most as many as there are. Exact. Collective; every rank gives at least one matrix.
Tensor cut(std::span<const Tensor> scores, double k, bool pooled, Communicator& everyone);

struct NthLargest {
  /// at[c] = the n-th largest of column c of all [R, C], 1 <= n <= R.
  static void cpu(const Tensor& at, const Tensor& all, int64_t n);
  static void cuda(const Tensor& at, const Tensor& all, int64_t n);
};

struct MovingAverage {
  /// value = now where it is NaN, else decay value + (1 - decay) now.
  static void cpu(const Tensor& value, const Tensor& now, double decay);
  static void cuda(const Tensor& value, const Tensor& now, double decay);
};

}  // namespace agon
