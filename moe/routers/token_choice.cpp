#include <cmath>

#include "moe/losses.h"
#include "moe/router.h"
#include "moe/selection.h"
#include "moe/statistics.h"
#include "moe/weights.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/jitter.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace agon {

namespace {

struct TokenChoiceOptions final : RouterOptions {
  double k = 2;
  std::string score = "softmax", norm = "none";
  double scale = 1;
  double capacity_factor = 0;
  std::string drop = "position";
  double jitter = 0;
  double bias_rate = 0;
  int64_t groups = 0, groups_kept = 0;
  std::string group_score = "max";
  LossOptions losses;

  TokenChoiceOptions() { losses.balance_coefficient = 0.01; }

  void visit(OptionVisitor& v) override {
    v("k", k, Range::at_least(1), "experts of a token");
    v("score", score, {"softmax", "sigmoid"}, "of an expert for a token, from the logits");
    v("norm", norm, {"none", "topk"},
      "a pair's weight is its score, or the score over the sum of the token's k scores");
    v("scale", scale, Range::above(0), "multiplies the weights");
    v("capacity_factor", capacity_factor, Range::at_least(0),
      "in training an expert takes at most capacity_factor * k * tokens / experts pairs of a routing group; 0: any "
      "number");
    v("drop", drop, {"position", "score"},
      "which pairs a full expert keeps: first choices and earlier tokens, or larger scores");
    v("jitter", jitter, Range::from_below(0, 1),
      "in training the router's input is multiplied by draws from 1 - jitter to 1 + jitter");
    v("bias_rate", bias_rate, Range::at_least(0),
      "how far the bias that steers the choice moves after a step, towards even loads; 0: not at all");
    v("groups", groups, Range::at_least(0), "equal groups of experts, of which a token uses groups_kept; 0: no groups");
    v("groups_kept", groups_kept, Range::at_least(0), "groups a token uses");
    v("group_score", group_score, {"max", "top2"},
      "what a group is chosen by: its best expert, or the sum of its two best");
    losses.visit(v);
  }

  void validate(int64_t experts) const override;
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
};

void TokenChoiceOptions::validate(int64_t experts) const {
  require(k == std::floor(k), "moe.router.k = ", k, ": token_choice gives every token a whole number of experts");
  require(k <= double(experts), "moe.router.k = ", k, ", but there are ", experts, " experts");
  require(k > 1 || norm != "topk",
          "moe.router.k = 1 with moe.router.norm = \"topk\" makes every weight 1, so the router gets no gradient from "
          "the task: "
          "use norm = \"none\" or k of at least 2");
  if (groups == 0) {
    require(groups_kept == 0, "moe.router.groups_kept = ", groups_kept, " without moe.router.groups");
    return;
  }
  require(experts % groups == 0, "moe.router.groups = ", groups, ": ", experts, " experts do not form equal groups");
  const int64_t size = experts / groups;
  require(groups_kept >= 1 && groups_kept <= groups, "moe.router.groups_kept = ", groups_kept, ", expected 1 to ",
          groups);
  require(double(groups_kept * size) >= k, "moe.router.groups_kept = ", groups_kept, ": so many groups of ", size,
          " experts do not hold moe.router.k = ", k);
  require(group_score == "max" || size >= 2,
          "moe.router.group_score = \"top2\" with one expert in a group: use \"max\"");
}

/// Every token keeps its k best experts: ROUTING.md section 2. Mixtral (arXiv 2401.04088), OLMoE, Switch (2101.03961)
/// and DeepSeek-V2 and -V3 (2412.19437) are settings of its options.
class TokenChoice final : public Router {
 public:
  TokenChoice(const RouterSize& size, const TokenChoiceOptions& options)
      : options_(options),
        k_(int64_t(options.k)),
        gate_(make_gate(size)),
        bias_({size.experts}, accumulator_dtype(size.precision.master)) {
    bias_.zero();
  }

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const bool training = context.mode == Mode::train, sigmoidal = options_.score == "sigmoid";
    const RandomKey key =
        RandomKey{context.seed, kJitterStream}.with(uint64_t(context.layer)).with(uint64_t(context.step));
    const Tensor logits =
        linear(training && options_.jitter > 0 ? jitter(x, options_.jitter, key, context.first_row) : x, gate_);
    const Tensor scores = sigmoidal ? sigmoid(logits) : softmax(logits);
    check_scores(scores, context);

    const GroupScore group_score = options_.group_score == "top2" ? GroupScore::top2 : GroupScore::max;
    const Pairs* const held = context.held_pairs();
    const Selection chosen =
        held ? Selection{held->chosen, held->chosen_offsets}
             : select_per_token(scores, bias_, {k_, options_.groups, options_.groups_kept, group_score});
    Tensor weight = gather_scores(scores, chosen.expert, chosen.token_offsets);
    if (options_.norm == "topk") weight = over_selected(weight, chosen.token_offsets, sigmoidal ? 1e-20 : 0);
    if (options_.scale != 1) weight = scale(weight, options_.scale);
    if (!training || options_.capacity_factor == 0)  // a capacity looks into the future
      return {chosen.expert, chosen.token_offsets, weight, logits, scores, chosen.expert, chosen.token_offsets};

    const Tensor groups = scope_offsets(context, x.shape(0), options_.losses.group, x.device());
    const Drop rule = options_.drop == "score" ? Drop::score : Drop::position;
    const Kept kept = drop_over_capacity(chosen, scores, groups, k_, options_.capacity_factor, rule);
    return {kept.selection.expert, kept.selection.token_offsets, kept_values(weight, kept.pair), logits, scores,
            chosen.expert,         chosen.token_offsets};
  }

  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext& context) override {
    const Tensor probabilities = options_.score == "sigmoid" ? over_all(pairs.scores, 1e-20) : pairs.scores;
    return {pairs.weight, make_losses(options_.losses, pairs, probabilities, context), describe(pairs, probabilities)};
  }

  void visit(const Visitor& v) override {
    v("gate", gate_);
    v("bias", bias_);
  }

  void after_step(const StepRecord& record) override {
    if (options_.bias_rate != 0) steer(bias_, record.chosen, options_.bias_rate);
  }

 private:
  static constexpr uint64_t kJitterStream = 0x6a69747465720000;

  TokenChoiceOptions options_;
  int64_t k_;
  Parameter gate_;  // [E, D]
  Tensor bias_;     // [E] steers the choice (arXiv 2408.15664); state
};

std::unique_ptr<Router> TokenChoiceOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<TokenChoice>(size, *this);
}

const RegisterRouter registered("token_choice", [] { return std::make_unique<TokenChoiceOptions>(); });

}  // namespace

}  // namespace agon
