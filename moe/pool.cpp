#include "moe/pool.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"
#include "moe/cpu/nth_largest.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 64;   // of a task
constexpr size_t kInserted = 32;  // of a token, sorted one by one

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

/// The n best of a pool: every score of at least `least`, and the first `some` of those that equal `tie`.
template <class S>
struct Best {
  S least, tie = 0;
  int64_t some = 0;
};

template <class S>
Best<S> best_of(std::vector<cpu::Key<S>>& keys, int64_t n) {
  if (n <= 0) return {std::numeric_limits<S>::quiet_NaN()};
  if (n >= int64_t(keys.size())) return {-std::numeric_limits<S>::infinity()};
  const auto cut = cpu::nth_largest(keys, n);
  if (cut.taken == cut.equal) return {cpu::value_of<S>(cut.key)};
  return {cpu::value_of<S>(cut.key + 1), cpu::value_of<S>(cut.key), cut.taken};
}

template <class S>
void mark_row(uint8_t* chosen, const S* scores, const S* least, int64_t experts) {
  for (int64_t e = 0; e < experts; ++e) chosen[e] = scores[e] >= least[e];
}

/// A scope's tokens, ascending.
std::span<const int32_t> tokens_of(const Scopes& scopes, int64_t s) {
  const auto offset = scopes.offsets.data<const int32_t>();
  return scopes.token.data<const int32_t>().subspan(size_t(offset[size_t(s)]),
                                                    size_t(offset[size_t(s) + 1] - offset[size_t(s)]));
}

/// Marks the best of every scope: `best` [S, columns], of each expert or, with one column, of all together.
template <class S>
void mark(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const std::vector<Best<S>>& best,
          int64_t columns) {
  const int64_t E = scores.shape(1);
  const S* const score = scores.data<const S>().data();
  uint8_t* const to = chosen.data<uint8_t>().data();
  std::vector<S> least(size_t(scopes.count() * E));
  for (size_t i = 0; i < least.size(); ++i) least[i] = best[columns == 1 ? i / size_t(E) : i].least;
  const auto token = scopes.token.data<const int32_t>(), offset = scopes.offsets.data<const int32_t>();
  parallel_ranges(scores.shape(0), kTokens, [&](int64_t begin, int64_t end) {
    auto s = size_t(std::ranges::upper_bound(offset, begin) - offset.begin() - 1);
    for (int64_t i = begin; i < end; ++i) {
      while (i >= offset[s + 1]) ++s;
      const int64_t first = token[size_t(i)] * E;
      mark_row(to + first, score + first, least.data() + int64_t(s) * E, E);
    }
  });
  parallel_tasks(scopes.count() * columns, [&](int64_t task) {
    const Best<S>& b = best[size_t(task)];
    const int64_t first = columns == 1 ? 0 : task % columns, last = columns == 1 ? E : first + 1;
    int64_t some = b.some;
    if (some == 0) return;
    for (const int32_t t : tokens_of(scopes, task / columns))
      for (int64_t i = t * E + first; i < t * E + last && some > 0; ++i)
        if (score[i] == b.tie) to[i] = 1, --some;
  });
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
  const int64_t E = scores.shape(1), width = std::clamp<int64_t>(E / 8, 1, 16), pieces = (E + width - 1) / width;
  const auto wanted = budget.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    std::vector<Best<S>> best(size_t(scopes.count() * E));
    parallel_tasks(scopes.count() * pieces, [&](int64_t task) {  // neighbours share cache lines
      const int64_t s = task / pieces, first = task % pieces * width, n = std::min(width, E - first);
      const auto tokens = tokens_of(scopes, s);
      std::vector<std::vector<cpu::Key<S>>> keys(size_t(n), std::vector<cpu::Key<S>>(tokens.size()));
      for (size_t i = 0; i < tokens.size(); ++i)
        for (int64_t e = 0; e < n; ++e) keys[size_t(e)][i] = cpu::key_of(score[tokens[i] * E + first + e]);
      for (int64_t e = 0; e < n; ++e) best[size_t(s * E + first + e)] = best_of<S>(keys[size_t(e)], wanted[size_t(s)]);
    });
    mark(chosen, scores, scopes, best, E);
  });
}

void MarkGlobal::cpu(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget) {
  const int64_t E = scores.shape(1);
  const auto wanted = budget.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    const S* const score = scores.data<const S>().data();
    std::vector<Best<S>> best(size_t(scopes.count()));
    parallel_tasks(scopes.count(), [&](int64_t s) {  // one scope: the loops inside are parallel
      const auto tokens = tokens_of(scopes, s);
      std::vector<cpu::Key<S>> keys(tokens.size() * size_t(E));
      parallel_ranges(int64_t(tokens.size()), kTokens, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          for (int64_t e = 0; e < E; ++e) keys[size_t(i * E + e)] = cpu::key_of(score[tokens[size_t(i)] * E + e]);
      });
      best[size_t(s)] = best_of<S>(keys, wanted[size_t(s)]);
    });
    mark(chosen, scores, scopes, best, 1);
  });
}

void MarkReaching::cpu(const Tensor& chosen, const Tensor& scores, const Tensor& threshold) {
  const int64_t E = scores.shape(1);
  visit_accumulator(scores.dtype(), [&]<class S>() {
    const auto given = threshold.data<const S>();
    std::vector<S> least(size_t(E), given.empty() ? S(0) : given[0]);
    if (given.size() == least.size()) std::ranges::copy(given, least.begin());
    parallel_ranges(scores.shape(0), kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        mark_row(chosen.data<uint8_t>().data() + t * E, scores.data<const S>().data() + t * E, least.data(), E);
    });
  });
}

void ChosenPairs::Offsets::cpu(int64_t& most, const Tensor& offsets, const Tensor& chosen) {
  const auto offset = offsets.data<int32_t>();
  const uint8_t* const from = chosen.data<const uint8_t>().data();
  const int64_t T = chosen.shape(0), E = chosen.shape(1);
  parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      offset[size_t(t) + 1] = std::accumulate(from + t * E, from + (t + 1) * E, int32_t(0));
  });
  offset[0] = 0;
  for (size_t t = 1; t < offset.size(); ++t) offset[t] += offset[t - 1];
  most = offset.back();
}

void ChosenPairs::Experts::cpu(const Tensor& expert, const Tensor& offsets, const Tensor& chosen,
                               const Tensor& scores) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  const uint8_t* const from = chosen.data<const uint8_t>().data();
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class S>() {
    parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> found(size_t(E) + 1);
      for (int64_t t = begin; t < end; ++t) {
        const S* const score = scores.data<const S>().data() + t * E;
        const auto better = [&](int32_t a, int32_t b) { return score[a] > score[b]; };
        size_t n = 0;
        for (int64_t e = 0; e < E; ++e) {
          found[n] = int32_t(e);
          n += from[t * E + e];
        }
        int32_t* const to = expert.data<int32_t>().data() + offset[size_t(t)];
        if (n > kInserted) {
          std::copy_n(found.begin(), n, to);
          std::stable_sort(to, to + n, better);
          continue;
        }
        for (size_t i = 0; i < n; ++i) {
          size_t at = i;
          for (; at > 0 && better(found[i], to[at - 1]); --at) to[at] = to[at - 1];
          to[at] = found[i];
        }
      }
    });
  });
}

}  // namespace agon
