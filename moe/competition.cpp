#include "moe/competition.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/counts.h"
#include "moe/dispatch.h"
#include "moe/distillation.h"
#include "moe/diversity.h"
#include "moe/ordered_sum.h"
#include "moe/statistics.h"
#include "ops/elementwise.h"
#include "ops/softmax.h"

namespace agon {

namespace {

constexpr double kGuard = 1e-20;  // added to what is divided by

/// P = softmax(a / temperature).
Tensor shares(const CompetitionOptions& options, const Tensor& answers) {
  return softmax(options.temperature == 1 ? answers : scale(answers, 1 / options.temperature));
}

/// The same over constants.
Tensor constant_shares(const CompetitionOptions& options, const Tensor& answers) {
  const Tape::Pause pause;
  return shares(options, answers.detach());
}

}  // namespace

void Agreement::cpu(const Tensor& figure, const Pairs& pairs, const Selection& others) {
  const auto offset = pairs.token_offsets.data<const int32_t>(), other = others.token_offsets.data<const int32_t>();
  const auto expert = pairs.expert.data<const int32_t>(), wanted = others.expert.data<const int32_t>();
  int64_t both = 0;
  for (size_t t = 0; t + 1 < offset.size(); ++t)
    for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i)
      both += std::count(wanted.begin() + other[t], wanted.begin() + other[t + 1], expert[i]);
  fill(figure, offset.back() > 0 ? double(both) / double(offset.back()) : 1);
}

void DivergenceFromUniform::cpu(const Tensor& figure, const Tensor& P) {
  const int64_t T = P.shape(0), E = P.shape(1);
  visit_accumulator(P.dtype(), [&]<class S>() {
    const auto p = P.data<const S>();
    const double all = ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      for (auto i = size_t(begin * E); i < size_t(end * E); ++i)
        sum += p[i] > S(0) ? double(p[i]) * std::log(double(p[i]) * double(E)) : 0;
      return sum;
    });
    fill(figure, all / double(std::max<int64_t>(T, 1)));
  });
}

void CompetitionOptions::visit(OptionVisitor& v) {
  v("temperature", temperature, Range::above(0),
    "divides the experts' scores before the softmax the router learns from");
  v("rate", schedule.rate, Range::within(0, 1), "share of a layer's steps in which its experts compete");
  v("warm_up", schedule.warm_up, Range::within(0, 1), "share of the training, at its start, without competition");
  v("max_layers", schedule.max_layers, Range::at_least(1), "at most so many layers compete in one step");
  v("router_coefficient", router_coefficient, Range::at_least(0), "of the router's distance from the experts' verdict");
  v("theta", theta, Range::at_least(0), "weight of the winners in that distance, beside all experts");
  v("diversity_coefficient", diversity_coefficient, Range::at_least(0), "of the likeness of the winners' answers");
  v("normal_balance_coefficient", normal_balance_coefficient, Range::at_least(0),
    "of the load balance loss in steps without competition");
  v("loser_gradient", loser_gradient, "the balance loss of competition steps reaches the losers' answers too");
  v("chunk_mib", chunk_mib, Range::within(1, 1 << 20), "memory for the answers that are scored at a time, MiB");
}

Tensor contest_scores(const CompetitionOptions& options, AnswerScore score, const Tensor& x,
                      const RouterContext& context) {
  if (const Pairs* held = context.held_pairs(); held && held->affinity && !options.loser_gradient)
    return held->affinity;
  check(context.experts && context.comm, "experts compete only inside a layer");
  const Tensor scores = all_answer_scores(x, *context.experts, score, options.chunk_mib << 20, *context.comm,
                                          options.loser_gradient, context.exchange);
  check_scores(scores, context, "the experts' answers'");
  return scores;
}

Contest::Contest(AnswerScore s, const Pairs& p, const Tensor& r, const Plan& where)
    : score(s), pairs(p), rows(r), plan(where), answer(by_pair(answer_scores(r, s), where)) {}

Tensor Contest::weights(WeightRule rule) const {
  const bool exponential = score == AnswerScore::silu_mean;
  if (rule == WeightRule::raw) return answer;
  if (rule == WeightRule::over_selected)
    return exponential ? softmax_selected(answer, pairs.token_offsets)
                       : over_selected(answer, pairs.token_offsets, kGuard);
  const Tensor all = with_values(pairs.affinity.detach(), answer, pairs.expert, pairs.token_offsets);
  return gather_scores(exponential ? softmax(all) : over_all(all, kGuard), pairs.expert, pairs.token_offsets);
}

Losses contest_losses(const CompetitionOptions& competition, const LossOptions& options, const Contest& contest,
                      const Tensor& router, const RouterContext& context) {
  const Pairs& pairs = contest.pairs;
  const Tensor groups = scope_offsets(context, pairs.logits.shape(0), options.group, router.device());
  Losses losses;
  if (competition.router_coefficient != 0)
    losses.push_back({"router",
                      distillation(router, constant_shares(competition, pairs.affinity), pairs.expert,
                                   pairs.token_offsets, groups, competition.theta),
                      competition.router_coefficient});
  if (competition.diversity_coefficient != 0)
    losses.push_back({"diversity", diversity(contest.rows, contest.plan, groups), competition.diversity_coefficient});
  if (options.balance_coefficient != 0) {
    const Tensor answers = with_values(pairs.affinity, contest.answer, pairs.expert, pairs.token_offsets);
    const Selection first = first_choices(pairs.expert, pairs.token_offsets);
    losses.push_back({"balance",
                      balance_loss(options, shares(competition, answers), first.expert, first.token_offsets, context),
                      options.balance_coefficient});
  }
  LossOptions rest = options;
  rest.balance_coefficient = 0;
  for (Loss& loss : make_losses(rest, pairs, router, context)) losses.push_back(std::move(loss));
  return losses;
}

Losses policy_losses(const CompetitionOptions& competition, LossOptions options, const Pairs& pairs,
                     const Tensor& probabilities, const RouterContext& context) {
  options.balance_coefficient = competition.normal_balance_coefficient;
  Pairs first = pairs;
  const Selection counted = first_choices(pairs.expert, pairs.token_offsets);
  first.chosen = counted.expert;
  first.chosen_offsets = counted.token_offsets;
  return make_losses(options, first, probabilities, context);
}

Statistics describe_contest(const CompetitionOptions& options, const Pairs& pairs, const Tensor& probabilities,
                            const Selection* routed) {
  Statistics s = describe(pairs, probabilities);
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const Selection first = first_choices(pairs.expert, pairs.token_offsets);
  const Tensor everything = one_scope(T, probabilities.device());
  s.chosen = count_experts(first.expert, first.token_offsets, everything, E).reshape({E});
  if (!routed) return s;
  const Device device = probabilities.device();
  const Tensor agreement({1}, DType::f64, device), divergence({1}, DType::f64, device);
  run<Agreement>(device, agreement, pairs, *routed);
  run<DivergenceFromUniform>(device, divergence, constant_shares(options, pairs.affinity));
  add_figure(s, "agreement", agreement);
  add_figure(s, "affinity_kl", divergence);
  return s;
}

}  // namespace agon
