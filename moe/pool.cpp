#include "moe/pool.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 64;  // of a task

/// The chosen pairs, token-major, each token's by falling score; chosen [T E].
template <class S>
Selection selection_of(const std::vector<char>& chosen, const S* scores, int64_t T, int64_t E) {
  const Tensor offsets({T + 1}, DType::i32);
  const auto offset = offsets.data<int32_t>();
  offset[0] = 0;
  for (int64_t t = 0; t < T; ++t)
    offset[size_t(t) + 1] =
        offset[size_t(t)] + int32_t(std::accumulate(chosen.begin() + t * E, chosen.begin() + (t + 1) * E, 0));
  const Tensor expert({offset.back()}, DType::i32);
  parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      auto first = expert.data<int32_t>().begin() + offset[size_t(t)], last = first;
      for (int64_t e = 0; e < E; ++e)
        if (chosen[size_t(t * E + e)]) *last++ = int32_t(e);
      std::stable_sort(first, last, [&](int32_t a, int32_t b) { return scores[t * E + a] > scores[t * E + b]; });
    }
  });
  return {expert, offsets};
}

/// Marks the n best of the pairs (flat indices t E + e).
template <class S>
void mark_best(std::vector<char>& chosen, std::vector<int64_t>& pairs, const S* scores, int64_t n) {
  const auto better = [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
  n = std::min(n, int64_t(pairs.size()));
  if (n < int64_t(pairs.size())) std::nth_element(pairs.begin(), pairs.begin() + n, pairs.end(), better);
  for (int64_t i = 0; i < n; ++i) chosen[size_t(pairs[size_t(i)])] = 1;
}

void check_budget(const Tensor& scores, const Scopes& scopes, double k) {
  check(scores.shape().rank() == 2 && scores.shape(0) == scopes.token.size(), "scores ", scores.shape(),
        " beside scopes of ", scopes.token.size(), " tokens");
  check(k >= 0 && k <= double(scores.shape(1)), "k = ", k, " of ", scores.shape(1), " experts");
}

}  // namespace

void PoolOptions::visit(OptionVisitor& v) {
  v("scope", scope, {"batch", "sequence", "time_step"},
    "whose tokens compete: those of a routing group, of each sequence, or at one position of its sequences");
  v("threshold_decay", threshold_decay, Range::from_below(0, 1),
    "of the moving average of the thresholds that causal evaluation selects by");
}

Selection select_per_expert(const Tensor& scores, const Scopes& scopes, double k) {
  check_budget(scores, scopes, k);
  const int64_t T = scores.shape(0), E = scores.shape(1);
  const std::vector<int64_t> budget = spread_budget(scopes, k / double(E));
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  std::vector<char> chosen(static_cast<size_t>(T * E));
  return visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    parallel_tasks(scopes.count() * E, [&](int64_t task) {
      const auto s = size_t(task / E);
      std::vector<int64_t> pairs;
      for (auto i = size_t(offset[s]); i < size_t(offset[s + 1]); ++i) pairs.push_back(token[i] * E + task % E);
      mark_best(chosen, pairs, score, budget[s]);
    });
    return selection_of(chosen, score, T, E);
  });
}

Selection select_global(const Tensor& scores, const Scopes& scopes, double k) {
  check_budget(scores, scopes, k);
  const int64_t T = scores.shape(0), E = scores.shape(1);
  const std::vector<int64_t> budget = spread_budget(scopes, k);
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  std::vector<char> chosen(static_cast<size_t>(T * E));
  return visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    parallel_tasks(scopes.count(), [&](int64_t task) {
      const auto s = size_t(task);
      std::vector<int64_t> pairs;
      for (auto i = size_t(offset[s]); i < size_t(offset[s + 1]); ++i)
        for (int64_t e = 0; e < E; ++e) pairs.push_back(token[i] * E + e);
      mark_best(chosen, pairs, score, budget[s]);
    });
    return selection_of(chosen, score, T, E);
  });
}

Selection select_reaching(const Tensor& scores, const Tensor& threshold) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  check(threshold.dtype() == scores.dtype() && (threshold.size() == E || threshold.size() == 1),
        "select_reaching: thresholds ", threshold.shape(), " of ", threshold.dtype(), " for scores ", scores.shape(),
        " of ", scores.dtype());
  std::vector<char> chosen(static_cast<size_t>(T * E));
  return visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    const auto least = threshold.data<const S>();
    for (int64_t i = 0; i < T * E; ++i) chosen[size_t(i)] = score[i] >= least[least.size() == 1 ? 0 : size_t(i % E)];
    return selection_of(chosen, score, T, E);
  });
}

Selection select_from_pool(const Tensor& scores, Taker taker, double k, int64_t group, const PoolOptions& options,
                           const Thresholds& thresholds, const RouterContext& context) {
  if (const Pairs* held = context.held_pairs()) return {held->expert, held->token_offsets};
  if (context.mode == Mode::eval) {
    require(thresholds.known(), "layer ", context.layer,
            " has no thresholds: where tokens compete, causal evaluation and generation need those that training "
            "learns, or a calibration");
    return select_reaching(scores, thresholds.value);
  }
  const Scopes scopes = make_scopes(context, scores.shape(0), group, options.scope);
  return taker == Taker::expert ? select_per_expert(scores, scopes, k) : select_global(scores, scopes, k);
}

}  // namespace agon
