#include "core/copy.h"
#include "moe/losses.h"
#include "moe/pool.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/weights.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon {

namespace {

struct ExpertChoiceOptions final : RouterOptions {
  double k = 2;
  PoolOptions pool;
  LossOptions losses;

  void visit(OptionVisitor& v) override {
    v("k", k, Range::above(0), "mean experts of a token: every expert takes k / experts of a scope's tokens");
    pool.visit(v);
    losses.visit(v);
  }

  void validate(int64_t experts) const override {
    require(k <= double(experts), "moe.router.k = ", k, ", but there are ", experts, " experts");
  }
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
};

/// Every expert takes its best tokens, equally many each (Zhou et al., arXiv 2202.09368): ROUTING.md section 3. Loads
/// are even by construction; a token may get none or all of the experts.
class ExpertChoice final : public Router {
 public:
  ExpertChoice(const RouterSize& size, const ExpertChoiceOptions& options)
      : options_(options),
        gate_(make_gate(size)),
        thresholds_(size.experts, accumulator_dtype(size.precision.master), options.k, options.pool.threshold_decay) {}

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_), scores = softmax(logits);
    check_scores(scores, context);
    const Selection chosen =
        select_from_pool(scores, Taker::expert, options_.k, options_.losses.group, options_.pool, thresholds_, context);
    const Tensor weight = gather_scores(scores, chosen.expert, chosen.token_offsets);
    return {chosen.expert, chosen.token_offsets, weight, logits, scores, chosen.expert, chosen.token_offsets};
  }

  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext& context) override {
    Weighed weighed{pairs.weight, make_losses(options_.losses, pairs, pairs.scores, context),
                    describe(pairs, pairs.scores)};
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
  ExpertChoiceOptions options_;
  Parameter gate_;         // [E, D]
  Thresholds thresholds_;  // one per expert
};

std::unique_ptr<Router> ExpertChoiceOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<ExpertChoice>(size, *this);
}

const RegisterRouter registered("expert_choice", [] { return std::make_unique<ExpertChoiceOptions>(); });

}  // namespace

}  // namespace agon
