#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/copy.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/thresholds.h"
#include "moe/weights.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon::testing {

/// Options of a strategy that exists in tests only and chooses between tokens, in the simplest way there is.
struct PoolToyOptions final : RouterOptions {
  double k = 2, alpha = 1;
  bool leaks = false;
  std::string scope = "batch", norm = "none";
  int64_t group = 0;
  double z_coefficient = 0, threshold_decay = 0.9;
  bool per_expert;  // not a key: the strategy's name says it

  explicit PoolToyOptions(bool each) : per_expert(each) {}
  void visit(OptionVisitor& v) override {
    v("k", k, Range::above(0), "experts of a token, on average");
    v("alpha", alpha, Range::above(0), "multiplies the logits");
    v("leaks", leaks, "weights depend on the last token of the batch");
    v("norm", norm, {"none", "row_all"}, "nothing");
    v("scope", scope, {"batch", "sequence"}, "nothing: always batch");
    v("group", group, Range::at_least(0), "nothing");
    v("z_coefficient", z_coefficient, Range::at_least(0), "nothing");
    v("threshold_decay", threshold_decay, Range::from_below(0, 1), "of the moving average");
  }
  void validate(int64_t experts) const override { require(k <= double(experts), "moe.router.k = ", k); }
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
};

/// The k T best pairs of the batch ("toy_pool"), or each expert's k / E T best tokens ("toy_columns"); what reaches the
/// thresholds where it must not see later tokens.
class PoolToy final : public Router {
 public:
  PoolToy(const RouterSize& size, const PoolToyOptions& options)
      : options_(options),
        gate_({size.experts, size.width}, in_master(size.precision)),
        thresholds_(options.per_expert ? size.experts : 1, accumulator_dtype(size.precision.master), options.k,
                    options.threshold_decay) {
    gate_.init = Init::normal;
    gate_.deviation = 20 * size.deviation;  // so that experts differ before anything is learned
  }

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_), scores = softmax(scale(logits, options_.alpha));
    const int64_t T = scores.shape(0), E = scores.shape(1);
    const auto comm = make_self_communicator();
    const std::vector<Tensor> all{scores};
    const bool causal = context.mode == Mode::eval;
    require(!causal || thresholds_.known(), "layer ", context.layer, " has no thresholds");
    const Tensor least = causal ? thresholds_.value : cut(all, options_.k, !options_.per_expert, *comm);
    std::vector<int32_t> expert, offsets{0};
    visit_accumulator(scores.dtype(), [&]<class S>() {
      const auto score = scores.data<const S>(), bound = least.data<const S>();
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t e = 0; e < E; ++e)
          if (score[size_t(t * E + e)] >= bound[options_.per_expert ? size_t(e) : 0]) expert.push_back(int32_t(e));
        offsets.push_back(int32_t(expert.size()));
      }
    });
    Pairs pairs{tensor_of(expert), tensor_of(offsets), {}, logits, scores, {}, {}};
    pairs.chosen = pairs.expert;
    pairs.chosen_offsets = pairs.token_offsets;
    pairs.weight = gather_scores(scores, pairs.expert, pairs.token_offsets);
    if (options_.leaks) pairs.weight = scale(pairs.weight, 1 + converted(scores, DType::f64).data<double>().back());
    return pairs;
  }

  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext&) override {
    Statistics statistics = describe(pairs, pairs.scores);
    statistics.candidates = pairs.scores;
    return {pairs.weight, {}, std::move(statistics)};
  }
  void visit(const Visitor& v) override { v("gate", gate_), v("threshold", thresholds_.value); }
  void after_step(const StepRecord& record) override { thresholds_.learn(record.candidates, *record.everyone); }
  Thresholds* thresholds() override { return &thresholds_; }

 private:
  PoolToyOptions options_;
  Parameter gate_;
  Thresholds thresholds_;
};

inline std::unique_ptr<Router> PoolToyOptions::make(const RouterSize& size) const {
  return std::make_unique<PoolToy>(size, *this);
}

/// Makes the strategies `toy_pool` and `toy_columns` known while it lives.
struct PoolToys {
  PoolToys() {
    routers()["toy_pool"] = [] { return std::make_unique<PoolToyOptions>(false); };
    routers()["toy_columns"] = [] { return std::make_unique<PoolToyOptions>(true); };
  }
  ~PoolToys() { routers().erase("toy_pool"), routers().erase("toy_columns"); }
  PoolToys(const PoolToys&) = delete;
};

}  // namespace agon::testing
