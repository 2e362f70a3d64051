#include "moe/unified_scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/softmax.h"

namespace agon {

namespace {

/// Calls f(tokens) for each scope, with the numbers of its tokens.
template <class F>
void each_scope(const Scopes& scopes, F&& f) {
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  parallel_tasks(scopes.count(), [&](int64_t s) {
    const auto begin = size_t(offset[size_t(s)]), end = size_t(offset[size_t(s) + 1]);
    if (begin < end) f(token.subspan(begin, end - begin));
  });
}

/// [T] f32 (f64): the number of tokens in each token's scope, over E.
Tensor tokens_over_experts(const Tensor& logits, const Scopes& scopes) {
  const Tensor share({logits.shape(0)}, logits.dtype(), logits.device());
  run<TokensOverExperts>(logits.device(), share, scopes, logits.shape(1));
  return share;
}

}  // namespace

void UnifiedOptions::visit(OptionVisitor& v) {
  v("alpha", alpha, Range::within(0, 1), "weight of the experts' view of a token against the token's view of experts");
  v("expert_score", expert_score, {"sigmoid", "softmax"},
    "how an expert sees a token: by itself, or against the tokens of the scope (never causal)");
}

Tensor softmax_over_tokens(const Tensor& z, const Scopes& scopes) {
  check(z.shape().rank() == 2 && z.shape(0) == scopes.token.size(), "softmax_over_tokens: ", z.shape(),
        " beside scopes of ", scopes.token.size(), " tokens");
  Tensor y(z.shape(), z.dtype(), z.device());
  run<SoftmaxOverTokens::Forward>(z.device(), y, z, scopes);
  return record("softmax_over_tokens", {&z}, y, [z = z.without_data(), y, scopes](Gradients& g, const Tensor& dy) {
    Tensor dz(y.shape(), y.dtype(), y.device());
    run<SoftmaxOverTokens::Backward>(y.device(), dz, dy, y, scopes);
    g.add(z, dz);
  });
}

Tensor unified_scores(const Tensor& logits, double alpha, ExpertScore view, const Scopes& scopes) {
  const double E = double(logits.shape(1));
  const Tensor of_token = scale(softmax(logits), 1 - alpha);
  if (view == ExpertScore::sigmoid) return add(of_token, scale(sigmoid(logits), alpha * 2 / E));
  const Tensor of_expert = scale_rows(softmax_over_tokens(logits, scopes), tokens_over_experts(logits, scopes));
  return add(of_token, scale(of_expert, alpha));
}

Tensor unified_scores(const Tensor& logits, const UnifiedOptions& options, const std::string& scope, int64_t group,
                      const RouterContext& context) {
  if (options.view() == ExpertScore::sigmoid) return unified_scores(logits, options.alpha, options.view(), {});
  require(context.mode != Mode::eval, "layer ", context.layer,
          ": moe.router.expert_score = \"softmax\" compares a token with later ones, so it has no causal evaluation: "
          "use expert_score = \"sigmoid\", or evaluate non-causally");
  return unified_scores(logits, options.alpha, options.view(),
                        make_scopes(context, logits.shape(0), group, scope, logits.device()));
}

void SoftmaxOverTokens::Forward::cpu(const Tensor& y, const Tensor& z, const Scopes& scopes) {
  const int64_t E = z.shape(1);
  visit_accumulator(z.dtype(), [&]<class S>() {
    const auto in = z.data<const S>();
    const auto out = y.data<S>();
    each_scope(scopes, [&](std::span<const int32_t> tokens) {
      for (int64_t e = 0; e < E; ++e) {
        const auto at = [&](int32_t t) { return size_t(t * E + e); };
        S most = in[at(tokens[0])], sum = 0;
        for (int32_t t : tokens) most = std::max(most, in[at(t)]);
        for (int32_t t : tokens) sum += out[at(t)] = std::exp(in[at(t)] - most);
        for (int32_t t : tokens) out[at(t)] /= sum;
      }
    });
  });
}

void SoftmaxOverTokens::Backward::cpu(const Tensor& dz, const Tensor& dy, const Tensor& y, const Scopes& scopes) {
  const int64_t E = y.shape(1);
  visit_accumulator(y.dtype(), [&]<class S>() {
    const auto share = y.data<const S>(), slope = dy.data<const S>();
    const auto out = dz.data<S>();
    each_scope(scopes, [&](std::span<const int32_t> tokens) {
      for (int64_t e = 0; e < E; ++e) {
        const auto at = [&](int32_t t) { return size_t(t * E + e); };
        S mean = 0;
        for (int32_t t : tokens) mean += share[at(t)] * slope[at(t)];
        for (int32_t t : tokens) out[at(t)] = share[at(t)] * (slope[at(t)] - mean);
      }
    });
  });
}

void TokensOverExperts::cpu(const Tensor& share, const Scopes& scopes, int64_t experts) {
  visit_accumulator(share.dtype(), [&]<class S>() {
    each_scope(scopes, [&](std::span<const int32_t> tokens) {
      for (int32_t t : tokens) share.data<S>()[size_t(t)] = S(double(tokens.size()) / double(experts));
    });
  });
}

}  // namespace agon
