#include "moe/routers/top_p.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "moe/losses.h"
#include "moe/router.h"
#include "moe/statistics.h"
#include "moe/weights.h"
#include "ops/linear.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "ops/top_k.h"

namespace agon {

namespace {

/// The most experts that a token of E can need: even probabilities need ceil(p E) of them to reach p.
int64_t most_experts(double p, int64_t experts) {
  return std::clamp<int64_t>(int64_t(std::ceil(p * double(experts))), 1, experts);
}

struct TopPOptions final : RouterOptions {
  double p = 0.4;
  std::string norm = "none";
  double k = 2;  // expected: p decides
  double token_entropy_coefficient = 1e-4;
  LossOptions losses;

  TopPOptions() { losses.balance_coefficient = 0.01; }

  void visit(OptionVisitor& v) override {
    v("p", p, Range{.low = 0, .high = 1, .low_open = true},
      "a token takes its likeliest experts until their probabilities add up to p");
    v("norm", norm, {"none", "row_selected"},
      "a pair's weight is its probability, or that over the sum of the token's chosen ones");
    v("k", k, Range::at_least(1),
      "mean experts of a token to count costs with; the choice looks at p alone, the log has the real mean");
    v("token_entropy_coefficient", token_entropy_coefficient, Range::at_least(0),
      "of the mean over tokens of the entropy of their probabilities, which keeps them to few experts; 0: none");
    losses.visit(v);
  }

  void validate(int64_t experts) const override {
    const int64_t most = most_experts(p, experts);
    require(k <= double(most), "moe.router.k = ", k, ", but with moe.router.p = ", p, " a token takes at most ", most,
            " of ", experts, " experts");
    require(norm != "row_selected" || most > 1, "moe.router.p = ", p, " gives every token one of ", experts,
            " experts, and moe.router.norm = \"row_selected\" makes its weight 1, so the router gets no gradient from "
            "the task: use norm = \"none\" or a larger p");
  }
  std::unique_ptr<Router> make(const RouterSize& size) const override;
  double experts_per_token() const override { return k; }
  std::string warning() const override {
    if (norm != "row_selected") return "";
    return "moe.router.norm = \"row_selected\": tokens with one expert give the router no gradient; the log has their "
           "share (tokens_with_1)";
  }
};

/// Every token keeps its likeliest experts, as few as reach p together: probabilities [T, E] f32 (f64), rows that sum
/// to 1. Ties to the lower index, sums in f64 and in order of preference, so that every device chooses the same pairs.
/// N is the bound T ceil(p E).
Selection select_top_p(const Tensor& probabilities, double p) {
  const int64_t T = probabilities.shape(0), most = most_experts(p, probabilities.shape(1));
  const Device device = probabilities.device();
  const Selection selection{Tensor({T * most}, DType::i32, device), Tensor({T + 1}, DType::i32, device)};
  run<SelectTopP>(device, selection, probabilities, top_k(probabilities, most), p);
  return selection;
}

Tensor token_entropy(const Tensor& logits) {
  const Tensor h({logits.shape(0)}, logits.dtype(), logits.device());
  run<TokenEntropy::Forward>(logits.device(), h, logits);
  return record("token_entropy", {&logits}, h, [logits, h](Gradients& g, const Tensor& dh) {
    const Tensor dz(logits.shape(), logits.dtype(), logits.device());
    run<TokenEntropy::Backward>(logits.device(), dz, dh, h, logits);
    g.add(logits, dz);
  });
}

/// A token that its router is sure about takes one expert, a doubtful one several (top-p routing, Huang et al., arXiv
/// 2403.07652).
class TopP final : public Router {
 public:
  TopP(const RouterSize& size, const TopPOptions& options) : options_(options), gate_(make_gate(size)) {}

  Pairs select(const Tensor& x, const RouterContext& context) override {
    const Tensor logits = linear(x, gate_), scores = softmax(logits);
    check_scores(scores, context);
    const Pairs* const held = context.held_pairs();
    const Selection chosen = held ? Selection{held->expert, held->token_offsets} : select_top_p(scores, options_.p);
    const WeightRule rule = options_.norm == "row_selected" ? WeightRule::over_selected : WeightRule::raw;
    const Tensor weight = weights_of(scores, rule, chosen.expert, chosen.token_offsets);
    return {chosen.expert, chosen.token_offsets, weight, logits, scores, chosen.expert, chosen.token_offsets};
  }

  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext& context) override {
    Losses losses = make_losses(options_.losses, pairs, pairs.scores, context);
    if (options_.token_entropy_coefficient != 0)
      losses.push_back({"token_entropy", mean(token_entropy(pairs.logits)), options_.token_entropy_coefficient});
    Statistics figures = describe(pairs, pairs.scores);
    const Tensor taken = gather_scores(pairs.scores.detach(), pairs.expert, pairs.token_offsets);
    if (const int64_t tokens = pairs.logits.shape(0); tokens > 0)
      add_figure(figures, "taken", sum(taken), double(tokens));
    return {pairs.weight, std::move(losses), std::move(figures)};
  }

  void visit(const Visitor& v) override { v("gate", gate_); }

 private:
  TopPOptions options_;
  Parameter gate_;  // [E, D]
};

std::unique_ptr<Router> TopPOptions::make(const RouterSize& size) const {
  validate(size.experts);
  return std::make_unique<TopP>(size, *this);
}

const RegisterRouter registered("top_p", [] { return std::make_unique<TopPOptions>(); });

}  // namespace

void SelectTopP::cpu(const Selection& selection, const Tensor& probabilities, const Tensor& best, double p) {
  const int64_t T = best.shape(0), most = best.shape(1), E = probabilities.shape(1);
  const auto expert = selection.expert.data<int32_t>(), offset = selection.token_offsets.data<int32_t>();
  visit_accumulator(probabilities.dtype(), [&]<class S>() {
    const auto probability = probabilities.data<const S>();
    const auto ranked = best.data<const int32_t>();
    size_t n = 0;
    offset[0] = 0;
    for (int64_t t = 0; t < T; ++t) {
      double reached = 0;
      for (int64_t i = 0; i < most && reached < p; ++i) {
        expert[n] = ranked[size_t(t * most + i)];
        reached += double(probability[size_t(t * E + expert[n++])]);
      }
      offset[size_t(t) + 1] = int32_t(n);
    }
    std::ranges::fill(expert.subspan(n), -1);
  });
}

namespace {

/// Calls f(t, row of z, its logsumexp).
template <class F>
void each_row(const Tensor& z, F&& f) {
  const auto E = size_t(z.shape(1));
  visit_accumulator(z.dtype(), [&]<class S>() {
    parallel_ranges(z.shape(0), 128, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const auto row = z.data<const S>().subspan(size_t(t) * E, E);
        const S largest = *std::ranges::max_element(row);
        S sum = 0;
        for (S v : row) sum += std::exp(v - largest);
        f(t, row, largest + std::log(sum));
      }
    });
  });
}

}  // namespace

void TokenEntropy::Forward::cpu(const Tensor& h, const Tensor& z) {
  each_row(z, [&]<class S>(int64_t t, std::span<const S> row, S lse) {
    S sum = 0;
    for (S v : row) sum += std::exp(v - lse) * (lse - v);
    h.data<S>()[size_t(t)] = sum;
  });
}

void TokenEntropy::Backward::cpu(const Tensor& dz, const Tensor& dh, const Tensor& h, const Tensor& z) {
  each_row(z, [&]<class S>(int64_t t, std::span<const S> row, S lse) {
    const S slope = dh.data<const S>()[size_t(t)], own = h.data<const S>()[size_t(t)];
    S* const out = dz.data<S>().data() + t * z.shape(1);
    for (size_t e = 0; e < row.size(); ++e) out[e] = slope * std::exp(row[e] - lse) * (lse - row[e] - own);
  });
}

}  // namespace agon
