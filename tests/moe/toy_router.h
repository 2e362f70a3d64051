#pragma once
#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "moe/dispatch.h"
#include "moe/losses.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/weights.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "ops/top_k.h"

namespace agon::testing {

/// a[n] = mean_d softplus(rows[n][d]): [N, D] -> [N], f64.
inline Tensor softplus_mean(const Tensor& rows) {
  const int64_t N = rows.shape(0), D = rows.shape(1);
  Tensor a({N}, DType::f64);
  for (int64_t n = 0; n < N; ++n) {
    double sum = 0;
    for (int64_t d = 0; d < D; ++d) sum += std::log1p(std::exp(rows.data<double>()[n * D + d]));
    a.data<double>()[n] = sum / double(D);
  }
  return record("softplus_mean", {&rows}, a, [rows, N, D](Gradients& g, const Tensor& da) {
    Tensor drows(rows.shape(), DType::f64);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t d = 0; d < D; ++d)
        drows.data<double>()[n * D + d] =
            da.data<double>()[n] / double(D) / (1 + std::exp(-rows.data<double>()[n * D + d]));
    g.add(rows, drows);
  });
}

/// A strategy whose weights are functions of the experts' answers: global token g has g % 3 experts, chosen by a gate
/// that gets no gradient from the task, and how loudly they answer decides their shares. Two losses: one of the gate,
/// one of the answers.
class ToyRouter final : public Router {
 public:
  explicit ToyRouter(const RouterSize& size) : gate_({size.experts, size.width}, in_master(size.precision)) {
    gate_.init = Init::normal;
    gate_.deviation = size.deviation;
  }

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_), scores = softmax(logits);
    const int64_t T = x.shape(0), most = std::min<int64_t>(2, scores.shape(1));
    const Tensor best = top_k(scores, most);
    std::vector<int32_t> expert, offsets{0};
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t j = 0; j < std::min(most, (context.first_row + t) % 3); ++j)
        expert.push_back(best.data<int32_t>()[t * most + j]);
      offsets.push_back(int32_t(expert.size()));
    }
    expert.resize(size_t(T * most), -1);  // N is the bound a host knows
    Pairs pairs{tensor_of(expert), tensor_of(offsets), {}, logits, scores, {}, {}};
    pairs.chosen = pairs.expert;
    pairs.chosen_offsets = pairs.token_offsets;
    return pairs;
  }

  Weighed weigh(const Pairs& pairs, const Tensor& rows, const Plan& plan, const RouterContext&) override {
    check(rows.shape(0) == pairs.expert.size(), "the answers of all pairs");
    const Tensor loudness = by_pair(softplus_mean(rows), plan);
    return {over_selected(loudness, pairs.token_offsets),
            {{"z", router_z(pairs.logits), 0.1},
             {"loud", scale(sum(loudness), 1 / double(std::max<int64_t>(1, pairs.logits.shape(0)))), 0.3}},
            describe(pairs, pairs.scores)};
  }
  bool weighs_rows(const RouterContext&) const override { return true; }
  void visit(const Visitor& v) override { v("gate", gate_); }

 private:
  Parameter gate_;
};

class ToyOptions final : public RouterOptions {
 public:
  void visit(OptionVisitor&) override {}
  void validate(int64_t) const override {}
  std::unique_ptr<Router> make(const RouterSize& size) const override { return std::make_unique<ToyRouter>(size); }
  double experts_per_token() const override { return 1; }
};

}  // namespace agon::testing
