#include "apps/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/profile.h"
#include "ops/grad_norm.h"

namespace agon {

double learning_rate(const OptimizerOptions& o, int64_t step, int64_t steps) {
  if (step < o.warm_up) return o.rate * double(step + 1) / double(o.warm_up + 1);
  if (o.schedule == "constant") return o.rate;
  int64_t start = o.warm_up;
  if (o.schedule == "wsd") start = std::max(o.warm_up, steps - int64_t(std::llround(o.decay_share * double(steps))));
  if (step < start) return o.rate;
  const double done = steps > start ? std::min(1.0, double(step - start) / double(steps - start)) : 1.0;
  const double left = o.schedule == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
  return o.final_rate + left * (o.rate - o.final_rate);
}

Optimizer::Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const Parameter* p : parameters_) {
    moments_.push_back({Tensor(p->master.shape(), p->master.dtype(), p->master.device()),
                        Tensor(p->master.shape(), p->master.dtype(), p->master.device())});
    moments_.back().first.zero();
    moments_.back().second.zero();
  }
}

Optimizer::Outcome Optimizer::update(int64_t step, int64_t steps, const Tensor& loss) {
  const Part part("optimizer");
  const Outcome outcome{grad_square_sum(parameters_), learning_rate(options_, step, steps)};
  AdamWOptions o;
  o.rate = outcome.rate;
  o.beta1 = options_.beta1;
  o.beta2 = options_.beta2;
  o.epsilon = options_.epsilon;
  o.decay = options_.weight_decay;
  o.clip = options_.clip;
  o.step = step + 1;
  adamw(parameters_, moments_, o, {outcome.square_sum, loss}, table_);
  return outcome;
}

void Optimizer::each_moment(const std::function<void(const std::string&, Tensor&)>& f) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    f("first." + parameters_[i]->name, moments_[i].first);
    f("second." + parameters_[i]->name, moments_[i].second);
  }
}

int64_t Optimizer::bytes() const {
  int64_t n = 0;
  for (const Moments& m : moments_) n += m.first.bytes() + m.second.bytes();
  return n;
}

}  // namespace agon
