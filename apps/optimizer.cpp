#include "apps/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "core/copy.h"
#include "core/profile.h"
#include "ops/grad_norm.h"

namespace agon {

namespace {

/// In place, the sums over ranks of tensors of one f64 each, in one call.
void sum_over_ranks(std::initializer_list<const Tensor*> numbers, Communicator& all) {
  const Tensor sums({int64_t(numbers.size())}, DType::f64, (*numbers.begin())->device());
  for (int64_t i = 0; const Tensor* t : numbers) copy(sums.part(i++, 1), *t);
  all.all_reduce(sums);
  for (int64_t i = 0; const Tensor* t : numbers) copy(*t, sums.part(i++, 1));
}

}  // namespace

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
    : parameters_(std::move(parameters)), updated_(parameters_), options_(options) {
  make_moments(1);
}

Optimizer::Optimizer(std::vector<Parameter*> parameters, const OptimizerOptions& options,
                     const ParallelOptions& parallel, Ranks& ranks)
    : parameters_(std::move(parameters)), updated_(parameters_), options_(options) {
  if (ranks.size() > 1) {
    shards_ = parallel.shard_optimizer;
    all_ = &ranks.all;
    buckets_.emplace(parameters_, ranks.all, *ranks.experts.replicas, int64_t(parallel.bucket_mib * (1 << 20)),
                     shards_);
    if (shards_) updated_.assign(buckets_->parts().begin(), buckets_->parts().end());
  }
  make_moments(ranks.experts.group->size());
}

/// `spread`: the ranks an expert parameter is spread over.
void Optimizer::make_moments(int spread) {
  std::map<std::string, Shape> wholes;
  for (const Parameter* p : parameters_) {
    const Shape& here = p->master.shape();
    wholes[p->name] = p->group == Group::expert ? here.with(0, here[0] * spread) : here;
  }
  for (const Parameter* p : updated_) {
    wholes_.push_back(wholes.at(p->name));
    moments_.push_back({Tensor(p->master.shape(), p->master.dtype(), p->master.device()),
                        Tensor(p->master.shape(), p->master.dtype(), p->master.device())});
    moments_.back().first.zero();
    moments_.back().second.zero();
  }
}

Tape::Ready Optimizer::sum_when_ready() {
  if (!buckets_) return {};
  return [this](Parameter& p) { buckets_->ready(p); };
}

/// Every rank sums the squares of its shares, sharded or not, so that both give the same bits.
Tensor Optimizer::square_sum(const Tensor& loss) {
  if (!buckets_) return grad_square_sum(parameters_);
  {
    const Part part("gradient sums");
    buckets_->finish();
  }
  const Tensor sum({1}, DType::f64, parameters_.front()->grad.device());
  sum.zero();
  if (!buckets_->parts().empty()) copy(sum, grad_square_sum(buckets_->parts()));
  if (loss)
    sum_over_ranks({&sum, &loss}, *all_);
  else
    sum_over_ranks({&sum}, *all_);
  return sum;
}

Optimizer::Outcome Optimizer::update(int64_t step, int64_t steps, const Tensor& loss) {
  const Part part("optimizer");
  const Outcome outcome{square_sum(loss), learning_rate(options_, step, steps)};
  AdamWOptions o;
  o.rate = outcome.rate;
  o.beta1 = options_.beta1;
  o.beta2 = options_.beta2;
  o.epsilon = options_.epsilon;
  o.decay = options_.weight_decay;
  o.clip = options_.clip;
  o.step = step + 1;
  adamw(updated_, moments_, o, {outcome.square_sum, loss}, table_);
  if (shards_) {
    for (Parameter* p : parameters_) p->has_grad = false;
    // Where nothing was updated a rank may have masters that are not the others', which is what is to be found.
    if (std::isfinite(outcome.square_sum.item()) && (!loss || std::isfinite(loss.item()))) buckets_->gather_masters();
  }
  return outcome;
}

void Optimizer::each_moment(const std::function<void(const Moment&)>& f) {
  for (size_t i = 0; i < updated_.size(); ++i) {
    const Parameter& p = *updated_[i];
    f({"first." + p.name, moments_[i].first, p.first, wholes_[i]});
    f({"second." + p.name, moments_[i].second, p.first, wholes_[i]});
  }
}

int64_t Optimizer::bytes() const {
  int64_t n = 0;
  for (const Moments& m : moments_) n += m.first.bytes() + m.second.bytes();
  return n;
}

}  // namespace agon
