#include <cmath>

#include "core/copy.h"
#include "moe/competition.h"
#include "moe/losses.h"
#include "moe/pool.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/unified_scores.h"
#include "moe/weights.h"
#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon {

namespace {

/// The three axes of a strategy (ROUTING.md section 1), chosen freely, and what each of them needs. Two strategies have
/// them: "composed" where the router's logits make the scores, "composed_answers" where the experts' answers do.
struct ComposedOptions final : RouterOptions {
  const bool answers;  // whether the experts compete
  double k = 2;
  std::string score, selection = "per_token", weight = "raw";
  UnifiedOptions unified;
  PoolOptions pool;
  CompetitionOptions contest;
  LossOptions losses;

  explicit ComposedOptions(bool from_answers)
      : answers(from_answers), score(answers ? answer_score_names().front() : "softmax") {
    if (answers) losses.balance_coefficient = 0.005;
  }

  void visit(OptionVisitor& v) override {
    static const std::vector<std::string> of_logits{"softmax", "sigmoid", "unified"};
    v("k", k, Range::above(0), "mean experts of a token");
    v("score", score, answers ? answer_score_names() : of_logits, "what a pair is worth");
    v("selection", selection, {"per_token", "per_expert", "global"},
      "who takes the best: every token its experts, every expert its tokens, or the scope its pairs");
    v("weight", weight, {"raw", "over_selected", "over_all"},
      "of a pair: its score, or that over the sum of the token's scores, of the chosen experts or of all");
    if (answers)
      contest.visit(v);
    else
      unified.visit(v);
    pool.visit(v);
    losses.visit(v);
  }

  void validate(int64_t experts) const override;
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
  const CompetitionRate* competition() const override { return answers ? &contest.schedule : nullptr; }
  bool free_axes() const override { return true; }
  std::string warning() const override;
  bool causal() const override { return score != "unified" || unified.view() == ExpertScore::sigmoid; }

  bool per_token() const { return selection == "per_token"; }
  WeightRule rule() const {
    return weight == "over_all"        ? WeightRule::over_all
           : weight == "over_selected" ? WeightRule::over_selected
                                       : WeightRule::raw;
  }
};

void ComposedOptions::validate(int64_t experts) const {
  require(k <= double(experts), "moe.router.k = ", k, ", but there are ", experts, " experts");
  if (per_token())
    require(k == std::floor(k), "moe.router.k = ", k,
            ": selection = \"per_token\" gives every token a whole number of experts");
  require(answers || weight != "over_selected" || k > 1, "moe.router.k = ", k,
          " with moe.router.weight = \"over_selected\" makes the weight of a token's only expert 1, so the router gets "
          "no gradient from the task: use another weight, or k above 1");
}

std::string ComposedOptions::warning() const {
  const UnifiedOptions usual;
  if (score != "unified" && (unified.alpha != usual.alpha || unified.expert_score != usual.expert_score))
    return text("moe.router.alpha and expert_score belong to score = \"unified\"; with \"", score,
                "\" they have no effect");
  if (per_token() && pool.threshold_decay != PoolOptions().threshold_decay)
    return "moe.router.threshold_decay has no effect with selection = \"per_token\": there are no thresholds";
  if (per_token() && causal() && pool.scope != PoolOptions().scope)
    return "moe.router.scope has no effect with selection = \"per_token\": tokens do not compete";
  if (answers || weight != "over_selected" || k >= 2) return "";
  return text("moe.router.weight = \"over_selected\" with k = ", k,
              ": tokens with one expert give the router no gradient; the log has their share (tokens_with_1)");
}

class Composed final : public Router {
 public:
  Composed(const RouterSize& size, const ComposedOptions& options)
      : options_(options),
        gate_(make_gate(size)),
        thresholds_(options.selection == "per_expert" ? size.experts : 1, accumulator_dtype(size.precision.master),
                    options.k, options.pool.threshold_decay) {}

  bool weighs_rows(const RouterContext& context) const override {
    return options_.answers && context.compete && context.mode == Mode::train;
  }

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_);
    const bool competes = weighs_rows(context);
    const Tensor scores = competes ? contest_scores(options_.contest, answer_score_named(options_.score), x, context)
                                   : scores_of(logits, context);
    check_scores(scores, context);
    const Selection chosen = choose(scores, context);
    Pairs pairs{chosen.expert, chosen.token_offsets, {}, logits, scores, chosen.expert, chosen.token_offsets};
    if (competes)
      pairs.affinity = scores;
    else
      pairs.weight = weights_of(scores, options_.rule(), chosen.expert, chosen.token_offsets,
                                options_.score == "sigmoid" ? 1e-20 : 0);
    return pairs;
  }

  Weighed weigh(const Pairs& pairs, const Tensor& rows, const Plan& plan, const RouterContext& context) override {
    Weighed weighed;
    if (weighs_rows(context)) {
      const Tensor router = softmax(pairs.logits);
      check_scores(router, context);
      const Contest contest(answer_score_named(options_.score), pairs, rows, plan);
      RouterContext again = context;
      again.held = {};
      const Selection routed = choose(router, again);
      weighed = {contest.weights(options_.rule()),
                 contest_losses(options_.contest, options_.losses, contest, router, context),
                 describe_contest(options_.contest, pairs, router, &routed)};
      weighed.statistics.candidates = router.detach();
    } else {
      const Tensor probabilities = options_.score == "sigmoid"   ? over_all(pairs.scores, 1e-20)
                                   : options_.score == "unified" ? softmax(pairs.logits)
                                                                 : pairs.scores;
      weighed.weight = pairs.weight;
      weighed.losses = options_.answers
                           ? policy_losses(options_.contest, options_.losses, pairs, probabilities, context)
                           : make_losses(options_.losses, pairs, probabilities, context);
      weighed.statistics = options_.answers ? describe_contest(options_.contest, pairs, probabilities, nullptr)
                                            : describe(pairs, probabilities);
      weighed.statistics.candidates = pairs.scores.detach();
    }
    if (options_.per_token()) weighed.statistics.candidates = {};
    return weighed;
  }

  void visit(const Visitor& v) override {
    v("gate", gate_);
    if (!options_.per_token()) v("threshold", thresholds_.value);
  }

  void after_step(const StepRecord& record) override {
    if (!options_.per_token()) thresholds_.learn(record.candidates, *record.everyone);
  }
  Thresholds* thresholds() override { return options_.per_token() ? nullptr : &thresholds_; }

 private:
  /// The router's own scores; its policy where the experts compete in other steps.
  Tensor scores_of(const Tensor& logits, const RouterContext& context) const {
    if (options_.score == "sigmoid") return sigmoid(logits);
    if (options_.score == "unified")
      return unified_scores(logits, options_.unified, options_.pool.scope, options_.losses.group, context);
    return softmax(logits);
  }

  Selection choose(const Tensor& scores, const RouterContext& context) const {
    if (!options_.per_token())
      return select_from_pool(scores, options_.selection == "per_expert" ? Taker::expert : Taker::scope, options_.k,
                              options_.losses.group, options_.pool, thresholds_, context);
    if (const Pairs* held = context.held_pairs()) return {held->expert, held->token_offsets};
    return select_per_token(scores, {}, {.k = int64_t(options_.k)});
  }

  ComposedOptions options_;
  Parameter gate_;         // [E, D]
  Thresholds thresholds_;  // unused where tokens choose
};

std::unique_ptr<Router> ComposedOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<Composed>(size, *this);
}

const RegisterRouter of_logits("composed", [] { return std::make_unique<ComposedOptions>(false); });
const RegisterRouter of_answers("composed_answers", [] { return std::make_unique<ComposedOptions>(true); });

}  // namespace

}  // namespace agon
