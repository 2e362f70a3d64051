#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "apps/config.h"
#include "distributed/communicator.h"
#include "ops/adamw.h"

namespace agon {

/// The learning rate of a step (from 0) of a run of `steps`: linear warm-up to `rate`, then as `schedule` says down to
/// `final_rate`.
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t steps);

/// AdamW over a model's parameters, with clipping by the global gradient norm.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options);

  struct Outcome {
    Tensor square_sum;  // [1] f64 on the parameters' device: of the gradients, before clipping
    double rate;
  };
  /// One update; `step` counts from 0, `steps` is the run's length. Nothing changes where the gradients' norm or `loss`
  /// ([1] f64 on the parameters' device; empty: not looked at) is not finite: see Outcome::square_sum.
  Outcome update(int64_t step, int64_t steps, const Tensor& loss = {});

  /// Calls f(name, moment) for every moment tensor: "first.PATH", "second.PATH".
  void each_moment(const std::function<void(const std::string&, Tensor&)>& f);
  std::span<Parameter* const> parameters() const { return parameters_; }
  int64_t bytes() const;  ///< of moments

 private:
  std::vector<Parameter*> parameters_;
  std::vector<Moments> moments_;
  AdamW::Table table_;
  OptimizerOptions options_;
};

}  // namespace agon
