#include "moe/competition.h"

#include <cmath>

#include "core/copy.h"
#include "moe/losses.h"
#include "moe/router.h"
#include "moe/selection.h"
#include "moe/weights.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon {

namespace {

struct CompetitionChoiceOptions final : RouterOptions {
  double k = 2;
  std::string score = answer_score_names().front();
  CompetitionOptions contest;
  LossOptions losses;

  CompetitionChoiceOptions() { losses.balance_coefficient = 0.005; }

  void visit(OptionVisitor& v) override {
    v("k", k, Range::at_least(1), "experts of a token");
    v("score", score, answer_score_names(), "what an expert's answer is worth in a competition");
    contest.visit(v);
    losses.visit(v);
  }

  void validate(int64_t experts) const override {
    require(k == std::floor(k), "moe.router.k = ", k, ": competition gives every token a whole number of experts");
    require(k <= double(experts), "moe.router.k = ", k, ", but there are ", experts, " experts");
  }
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
  const CompetitionRate* competition() const override { return &contest.schedule; }
};

/// The experts that answer loudest win (CompeteSMoE, arXiv 2505.13380): ROUTING.md section 5. On a competition step all
/// experts answer every token, the k strongest answers are its result, weighed by their strength, and the router learns
/// to foresee the verdict. On the other steps, and always at inference, the router decides.
class Competition final : public Router {
 public:
  Competition(const RouterSize& size, const CompetitionChoiceOptions& options)
      : options_(options), score_(answer_score_named(options.score)), gate_(make_gate(size)) {}

  bool weighs_rows(const RouterContext& context) const override {
    return context.compete && context.mode == Mode::train;
  }

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_);
    if (weighs_rows(context)) {
      const Tensor affinity = contest_scores(options_.contest, score_, x, context);
      const Selection won = choose(affinity, context);
      return {won.expert, won.token_offsets, {}, logits, affinity, won.expert, won.token_offsets, affinity};
    }
    const Tensor scores = softmax(logits);
    check_scores(scores, context);
    const Selection chosen = choose(scores, context);
    const Tensor weight =
        over_selected(gather_scores(scores, chosen.expert, chosen.token_offsets), chosen.token_offsets);
    return {chosen.expert, chosen.token_offsets, weight, logits, scores, chosen.expert, chosen.token_offsets};
  }

  Weighed weigh(const Pairs& pairs, const Tensor& rows, const Plan& plan, const RouterContext& context) override {
    if (!weighs_rows(context))
      return {pairs.weight, policy_losses(options_.contest, options_.losses, pairs, pairs.scores, context),
              describe_contest(options_.contest, pairs, pairs.scores, nullptr)};
    const Tensor router = softmax(pairs.logits);
    check_scores(router, context);
    const Contest contest(score_, pairs, rows, plan);
    const Selection routed = choose(router, {});
    return {contest.weights(WeightRule::over_selected),
            contest_losses(options_.contest, options_.losses, contest, router, context),
            describe_contest(options_.contest, pairs, router, &routed)};
  }

  void visit(const Visitor& v) override { v("gate", gate_); }

 private:
  Selection choose(const Tensor& scores, const RouterContext& context) const {
    if (const Pairs* held = context.held_pairs()) return {held->expert, held->token_offsets};
    return select_per_token(scores, {}, {.k = int64_t(options_.k)});
  }

  CompetitionChoiceOptions options_;
  AnswerScore score_;
  Parameter gate_;  // [E, D]
};

std::unique_ptr<Router> CompetitionChoiceOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<Competition>(size, *this);
}

const RegisterRouter registered("competition", [] { return std::make_unique<CompetitionChoiceOptions>(); });

}  // namespace

}  // namespace agon
