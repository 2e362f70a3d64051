#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/ranks.h"
#include "autograd/tape.h"
#include "distributed/reduce.h"
#include "ops/adamw.h"

namespace agon {

/// The learning rate of a step (from 0) of a run of `steps`: linear warm-up to `rate`, then as `schedule` says down to
/// `final_rate`.
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps);

/// AdamW over a model's parameters, with clipping by the global gradient norm. On many ranks it also sums the gradients
/// (reduce.h), and with parallel.shard_optimizer each rank keeps the moments of its share and updates that.
class Optimizer {
 public:
  /// For one rank.
  Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options);
  /// Collective. The ranks must outlive it.
  Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options, const ParallelOptions& parallel,
            Ranks& ranks);

  /// For the tape of a step's last micro-batch: sums go on during its backward pass. Empty on one rank.
  Tape::Ready sum_when_ready();

  struct Outcome {
    Tensor square_sum;  // [1] f64 on the parameters' device: of all ranks' gradients, before clipping
    double rate;
  };
  /// One update; `step` counts from 0, `steps` is the run's length. `loss` ([1] f64 on the parameters' device; empty:
  /// not looked at) becomes the sum over ranks. Nothing changes on any rank where the gradients' norm or that sum is
  /// not finite: see Outcome::square_sum. Collective.
  Outcome update(int64_t step, int64_t steps, const Tensor& loss = {});

  /// A moment tensor of this rank: its elements are those from `first` on of one of shape `whole`.
  struct Moment {
    std::string name;  // "first.PATH", "second.PATH"
    Tensor& tensor;
    int64_t first;
    Shape whole;
  };
  void each_moment(const std::function<void(const Moment&)>& f);
  std::span<Parameter* const> parameters() const { return parameters_; }
  int64_t bytes() const;  ///< of this rank's moments

 private:
  void make_moments(int spread);
  Tensor square_sum(const Tensor& loss);

  std::vector<Parameter*> parameters_;
  std::optional<GradientBuckets> buckets_;  // on many ranks
  bool shards_ = false;
  Communicator* all_ = nullptr;
  std::vector<Parameter*> updated_;  // parameters_, or this rank's shares
  std::vector<Moments> moments_;     // of those
  std::vector<Shape> wholes_;        // likewise: the parameter's shape, over all ranks
  AdamW::Table table_;
  OptimizerOptions options_;
};

}  // namespace agon
