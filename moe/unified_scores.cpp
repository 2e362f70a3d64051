#include "moe/unified_scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/activation.h"
#include "ops/cpu/exp.h"
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

/// Calls f(tokens, first, last) for each scope and the experts [first, last), at most kExperts.
constexpr int64_t kExperts = 16;  // whole cache lines
template <class F>
void each_scope_and_experts(const Scopes& scopes, int64_t experts, F&& f) {
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  const int64_t width = std::clamp<int64_t>(experts / 8, 1, kExperts), pieces = (experts + width - 1) / width;
  parallel_tasks(scopes.count() * pieces, [&](int64_t task) {
    const auto s = size_t(task / pieces), begin = size_t(offset[s]), end = size_t(offset[s + 1]);
    const int64_t first = task % pieces * width;
    if (begin < end) f(token.subspan(begin, end - begin), first, std::min(experts, first + width));
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
    const S* const in = z.data<const S>().data();
    S* const out = y.data<S>().data();
    each_scope_and_experts(scopes, E, [&](std::span<const int32_t> tokens, int64_t first, int64_t last) {
      S most[kExperts], sum[kExperts] = {};
      const int64_t n = last - first;
      std::copy_n(in + tokens[0] * E + first, n, most);
      for (int32_t t : tokens)
        for (int64_t e = 0; e < n; ++e) most[e] = std::max(most[e], in[t * E + first + e]);
      for (int32_t t : tokens) {
        S* const row = out + t * E + first;
        for (int64_t e = 0; e < n; ++e) row[e] = cpu::exp(in[t * E + first + e] - most[e]);
        for (int64_t e = 0; e < n; ++e) sum[e] += row[e];
      }
      for (int32_t t : tokens)
        for (int64_t e = 0; e < n; ++e) out[t * E + first + e] /= sum[e];
    });
  });
}

void SoftmaxOverTokens::Backward::cpu(const Tensor& dz, const Tensor& dy, const Tensor& y, const Scopes& scopes) {
  const int64_t E = y.shape(1);
  visit_accumulator(y.dtype(), [&]<class S>() {
    const S *const share = y.data<const S>().data(), *const slope = dy.data<const S>().data();
    S* const out = dz.data<S>().data();
    each_scope_and_experts(scopes, E, [&](std::span<const int32_t> tokens, int64_t first, int64_t last) {
      S mean[kExperts] = {};
      for (int32_t t : tokens)
        for (int64_t i = t * E + first; i < t * E + last; ++i) mean[i - t * E - first] += share[i] * slope[i];
      for (int32_t t : tokens)
        for (int64_t i = t * E + first; i < t * E + last; ++i) out[i] = share[i] * (slope[i] - mean[i - t * E - first]);
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
