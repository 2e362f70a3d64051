#include "moe/pool.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 64;  // of a task

Tensor no_pairs(const Tensor& scores) {
  const Tensor chosen(scores.shape(), DType::u8, scores.device());
  return chosen.zero();
}

/// The chosen pairs, token-major, each token's by falling score; at most `most`.
Selection selection_of(const Tensor& chosen, const Tensor& scores, int64_t most) {
  const Tensor offsets({scores.shape(0) + 1}, DType::i32, scores.device());
  run<ChosenPairs::Offsets>(scores.device(), most, offsets, chosen);
  const Tensor expert({most}, DType::i32, scores.device());
  run<ChosenPairs::Experts>(scores.device(), expert, offsets, chosen, scores);
  return {expert, offsets};
}

/// Marks the n best of the pairs (flat indices t E + e).
template <class S>
void mark_best(std::span<uint8_t> chosen, std::vector<int64_t>& pairs, const S* scores, int64_t n) {
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
  const int64_t E = scores.shape(1);
  const Tensor chosen = no_pairs(scores);
  run<MarkPerExpert>(scores.device(), chosen, scores, scopes, spread_budget(scopes, k / double(E)));
  return selection_of(chosen, scores, E * total_budget(scopes, k / double(E)));
}

Selection select_global(const Tensor& scores, const Scopes& scopes, double k) {
  check_budget(scores, scopes, k);
  const Tensor chosen = no_pairs(scores);
  run<MarkGlobal>(scores.device(), chosen, scores, scopes, spread_budget(scopes, k));
  return selection_of(chosen, scores, total_budget(scopes, k));
}

Selection select_reaching(const Tensor& scores, const Tensor& threshold) {
  check(threshold.dtype() == scores.dtype() && (threshold.size() == scores.shape(1) || threshold.size() == 1),
        "select_reaching: thresholds ", threshold.shape(), " of ", threshold.dtype(), " for scores ", scores.shape(),
        " of ", scores.dtype());
  const Tensor chosen = no_pairs(scores);
  run<MarkReaching>(scores.device(), chosen, scores, threshold);
  return selection_of(chosen, scores, scores.size());
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
  const Scopes scopes = make_scopes(context, scores.shape(0), group, options.scope, scores.device());
  return taker == Taker::expert ? select_per_expert(scores, scopes, k) : select_global(scores, scopes, k);
}

void MarkPerExpert::cpu(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget) {
  const int64_t E = scores.shape(1);
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  const auto wanted = budget.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    parallel_tasks(scopes.count() * E, [&](int64_t task) {
      const auto s = size_t(task / E);
      std::vector<int64_t> pairs;
      for (auto i = size_t(offset[s]); i < size_t(offset[s + 1]); ++i) pairs.push_back(token[i] * E + task % E);
      mark_best(chosen.data<uint8_t>(), pairs, scores.data<const S>().data(), wanted[s]);
    });
  });
}

void MarkGlobal::cpu(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget) {
  const int64_t E = scores.shape(1);
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  const auto wanted = budget.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    parallel_tasks(scopes.count(), [&](int64_t task) {
      const auto s = size_t(task);
      std::vector<int64_t> pairs;
      for (auto i = size_t(offset[s]); i < size_t(offset[s + 1]); ++i)
        for (int64_t e = 0; e < E; ++e) pairs.push_back(token[i] * E + e);
      mark_best(chosen.data<uint8_t>(), pairs, scores.data<const S>().data(), wanted[s]);
    });
  });
}

void MarkReaching::cpu(const Tensor& chosen, const Tensor& scores, const Tensor& threshold) {
  const auto E = size_t(scores.shape(1));
  const auto to = chosen.data<uint8_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    const auto score = scores.data<const S>(), least = threshold.data<const S>();
    for (size_t i = 0; i < to.size(); ++i) to[i] = score[i] >= least[least.size() == 1 ? 0 : i % E];
  });
}

void ChosenPairs::Offsets::cpu(int64_t& most, const Tensor& offsets, const Tensor& chosen) {
  const auto offset = offsets.data<int32_t>();
  const auto from = chosen.data<const uint8_t>();
  const auto E = size_t(chosen.shape(1));
  offset[0] = 0;
  for (size_t t = 0; t + 1 < offset.size(); ++t)
    offset[t + 1] = std::accumulate(from.begin() + ptrdiff_t(t * E), from.begin() + ptrdiff_t((t + 1) * E), offset[t]);
  most = offset.back();
}

void ChosenPairs::Experts::cpu(const Tensor& expert, const Tensor& offsets, const Tensor& chosen,
                               const Tensor& scores) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  const uint8_t* const from = chosen.data<const uint8_t>().data();
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        auto first = expert.data<int32_t>().begin() + offset[size_t(t)], last = first;
        for (int64_t e = 0; e < E; ++e)
          if (from[t * E + e]) *last++ = int32_t(e);
        std::stable_sort(first, last, [&](int32_t a, int32_t b) { return score[t * E + a] > score[t * E + b]; });
      }
    });
  });
}

}  // namespace agon
