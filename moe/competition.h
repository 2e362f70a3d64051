#pragma once
#include "moe/all_answers.h"
#include "moe/losses.h"
#include "moe/selection.h"
#include "moe/weights.h"

// What a competition between experts adds to a step: weights made of the winners' answers, and losses
// (CompeteSMoE, arXiv 2505.13380; ROUTING.md section 5).

namespace agon {

/// The options of strategies whose experts compete.
struct CompetitionOptions {
  double temperature = 1;
  CompetitionRate schedule;
  double router_coefficient = 0.01, theta = 0.2, diversity_coefficient = 0.005;
  double normal_balance_coefficient = 0.01;
  bool loser_gradient = false;
  int64_t chunk_mib = 64;

  void visit(OptionVisitor& v);
};

/// The scores of all experts' answers to x, [T, E]: what winners are chosen by. On the tape only where losers get
/// gradients. Collective. Throws Error naming layer and step at NaN.
Tensor contest_scores(const CompetitionOptions& options, AnswerScore score, const Tensor& x,
                      const RouterContext& context);

/// One competing layer when its winners have answered.
struct Contest {
  AnswerScore score;
  const Pairs& pairs;  // affinity is contest_scores
  const Tensor& rows;  // [N, D], sorted as `plan` says, on the tape
  const Plan& plan;
  Tensor answer;  // [N]: the winners' scores in the order of the pairs, on the tape

  Contest(AnswerScore score, const Pairs& pairs, const Tensor& rows, const Plan& plan);
  /// The weights of the pairs, [N]: functions of the winners' answers; those of losers count as constants. silu_mean
  /// can be negative, so its shares are a softmax.
  Tensor weights(WeightRule rule) const;
};

/// "router", "diversity" and "balance" of a competition step, and z and entropy of `options` of the router's logits.
/// options.balance_coefficient belongs to competition steps. `router` q [T, E]: softmax of the logits, on the tape.
Losses contest_losses(const CompetitionOptions& competition, const LossOptions& options, const Contest& contest,
                      const Tensor& router, const RouterContext& context);
/// The losses of the steps between: balance with normal_balance_coefficient counts first choices.
Losses policy_losses(const CompetitionOptions& competition, LossOptions options, const Pairs& pairs,
                     const Tensor& probabilities, const RouterContext& context);

/// describe() but Statistics::chosen counts first winners, as the balance loss does; on a competition step also
///   agreement     share of the winners that the router would have chosen too
///   affinity_kl   mean over tokens of KL(P ‖ uniform), nats
/// `routed`: what the router would have chosen; null on other steps.
Statistics describe_contest(const CompetitionOptions& options, const Pairs& pairs, const Tensor& probabilities,
                            const Selection* routed);

/// figure [1] f64: the share of the pairs that are among `others` too; 1 where there are none.
struct Agreement {
  static void cpu(const Tensor& figure, const Pairs& pairs, const Selection& others);
  static void cuda(const Tensor& figure, const Pairs& pairs, const Selection& others);
};

/// figure [1] f64: the mean over the rows of KL(P ‖ uniform), P [T, E].
struct DivergenceFromUniform {
  static void cpu(const Tensor& figure, const Tensor& P);
  static void cuda(const Tensor& figure, const Tensor& P);
};

}  // namespace agon
