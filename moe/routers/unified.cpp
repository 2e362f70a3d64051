#include "core/copy.h"
#include "moe/losses.h"
#include "moe/pool.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/unified_scores.h"
#include "moe/weights.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon {

namespace {

struct UnifiedChoiceOptions final : RouterOptions {
  double k = 2;
  UnifiedOptions score;
  std::string norm = "none";
  PoolOptions pool;
  LossOptions losses;

  void visit(OptionVisitor& v) override {
    v("k", k, Range::above(0), "mean experts of a token, not necessarily whole");
    score.visit(v);
    v("norm", norm, {"none", "row_all", "row_selected"},
      "a pair's weight is its score, or the score over the sum of the token's scores: of all experts, of the chosen "
      "ones");
    pool.visit(v);
    losses.visit(v);
  }

  void validate(int64_t experts) const override {
    require(k <= double(experts), "moe.router.k = ", k, ", but there are ", experts, " experts");
    require(norm != "row_selected" || k > 1, "moe.router.k = ", k,
            " with moe.router.norm = \"row_selected\" makes the weight of a token's only expert 1, so the router gets "
            "no gradient from the task: use norm = \"none\" or \"row_all\", or k above 1");
  }
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
  bool causal() const override { return score.view() == ExpertScore::sigmoid; }
  std::string warning() const override {
    if (norm != "row_selected" || k >= 2) return "";
    return text("moe.router.norm = \"row_selected\" with k = ", k,
                ": tokens with one expert give the router no gradient; the log has their share (tokens_with_1)");
  }

  WeightRule rule() const {
    return norm == "row_all"        ? WeightRule::over_all
           : norm == "row_selected" ? WeightRule::over_selected
                                    : WeightRule::raw;
  }
};

/// All pairs of a scope compete, each seen from its token and from its expert (USMoE, arXiv 2503.22996): ROUTING.md
/// section 4. The budget N = k T is met exactly; neither tokens nor experts have a quota.
class Unified final : public Router {
 public:
  Unified(const RouterSize& size, const UnifiedChoiceOptions& options)
      : options_(options),
        gate_(make_gate(size)),
        thresholds_(1, accumulator_dtype(size.precision.master), options.k, options.pool.threshold_decay) {}

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_);
    const Tensor scores = unified_scores(logits, options_.score, options_.pool.scope, options_.losses.group, context);
    check_scores(scores, context);
    const Selection chosen =
        select_from_pool(scores, Taker::scope, options_.k, options_.losses.group, options_.pool, thresholds_, context);
    const Tensor weight = weights_of(scores, options_.rule(), chosen.expert, chosen.token_offsets);
    return {chosen.expert, chosen.token_offsets, weight, logits, scores, chosen.expert, chosen.token_offsets};
  }

  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext& context) override {
    const Tensor probabilities = softmax(pairs.logits);
    Weighed weighed{pairs.weight, make_losses(options_.losses, pairs, probabilities, context),
                    describe(pairs, probabilities)};
    weighed.statistics.candidates = pairs.scores.detach();
    return weighed;
  }

  void visit(const Visitor& v) override {
    v("gate", gate_);
    v("threshold", thresholds_.value);
  }

  void after_step(const StepRecord& record) override { thresholds_.learn(record.candidates, *record.everyone); }
  Thresholds* thresholds() override { return &thresholds_; }

 private:
  UnifiedChoiceOptions options_;
  Parameter gate_;         // [E, D]
  Thresholds thresholds_;  // one
};

std::unique_ptr<Router> UnifiedChoiceOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<Unified>(size, *this);
}

const RegisterRouter registered("unified", [] { return std::make_unique<UnifiedChoiceOptions>(); });

}  // namespace

}  // namespace agon
