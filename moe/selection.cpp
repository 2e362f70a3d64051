#include "moe/selection.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"
#include "ops/top_k.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 64;  // of a task
constexpr int64_t kScores = 16384;

// Clear keeps[i] for the pairs of the tokens [first, last) that their expert has no room for.

template <class T>
void drop_by_score(std::vector<char>& keeps, std::span<const int32_t> expert, const Tensor& scores, int64_t first,
                   int64_t last, int64_t k, size_t room) {
  const int64_t E = scores.shape(1);
  const T* const score = scores.data<const T>().data();
  std::vector<std::vector<int64_t>> pairs(static_cast<size_t>(E));
  for (int64_t i = first * k; i < last * k; ++i) pairs[size_t(expert[size_t(i)])].push_back(i);
  for (auto& of_expert : pairs) {
    if (of_expert.size() <= room) continue;
    const auto at = [&](int64_t i) { return score[i / k * E + expert[size_t(i)]]; };
    const auto better = [&](int64_t a, int64_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; };
    std::nth_element(of_expert.begin(), of_expert.begin() + ptrdiff_t(room), of_expert.end(), better);
    for (size_t n = room; n < of_expert.size(); ++n) keeps[size_t(of_expert[n])] = 0;
  }
}

void drop_by_position(std::vector<char>& keeps, std::span<const int32_t> expert, int64_t experts, int64_t first,
                      int64_t last, int64_t k, size_t room) {
  std::vector<size_t> taken(static_cast<size_t>(experts));
  for (int64_t choice = 0; choice < k; ++choice)
    for (int64_t t = first; t < last; ++t) {
      const auto i = size_t(t * k + choice);
      if (++taken[size_t(expert[i])] > room) keeps[i] = 0;
    }
}

}  // namespace

void check_scores(const Tensor& scores, const RouterContext& context, const char* whose) {
  if (scores.device().kind != Device::cpu) return;
  visit_accumulator(scores.dtype(), [&]<class T>() {
    const auto s = scores.data<const T>();
    std::atomic<bool> found = false;
    parallel_ranges(int64_t(s.size()), kScores, [&](int64_t begin, int64_t end) {
      int32_t unequal = 0;  // no way out in the middle, so that the loop can take many at once
      for (auto i = size_t(begin); i < size_t(end); ++i) unequal |= s[i] != s[i];
      if (unequal) found = true;
    });
    if (!found) return;
    const auto bad = std::ranges::find_if(s, [](T v) { return std::isnan(v); });
    const int64_t at = bad - s.begin();
    throw Error(text(whose, " scores of layer ", context.layer, " at step ", context.step + 1,
                     " are NaN, first for token ", at / scores.shape(1), " and expert ", at % scores.shape(1)));
  });
}

Selection select_per_token(const Tensor& scores, const Tensor& bias, const PerToken& rule) {
  const int64_t T = scores.shape(0), E = scores.shape(1), k = rule.k;
  check(k >= 1 && k <= E, "select_per_token: k = ", k, " of ", E, " experts");
  check(!bias || (bias.shape() == Shape{E} && bias.dtype() == scores.dtype()), "select_per_token: bias ", bias.shape(),
        " of ", bias.dtype(), ", expected ", Shape{E}, " of ", scores.dtype());
  check(rule.groups == 0 || (E % rule.groups == 0 && rule.groups_kept >= 1 && rule.groups_kept <= rule.groups &&
                             rule.groups_kept * (E / rule.groups) >= k),
        "select_per_token: ", rule.groups_kept, " of ", rule.groups, " groups of ", E, " experts do not hold k = ", k);
  Tensor choice = scores;
  if (bias || rule.groups > 0) {
    choice = Tensor(scores.shape(), scores.dtype(), scores.device());
    run<ChoiceScores>(scores.device(), choice, scores, bias, rule);
  }
  const Selection selection{top_k(choice, k).reshape({T * k}), Tensor({T + 1}, DType::i32, scores.device())};
  fill_steps(selection.token_offsets, 0, k);
  return selection;
}

void steer(const Tensor& bias, const Tensor& chosen, double rate) {
  check(bias.shape() == chosen.shape() && chosen.dtype() == DType::f64, "steer: bias ", bias.shape(), " by counts ",
        chosen.shape(), " of ", chosen.dtype());
  run<Steer>(bias.device(), bias, chosen, rate);
}

Selection first_choices(const Tensor& expert, const Tensor& token_offsets) {
  const Selection first{Tensor({token_offsets.size() - 1}, DType::i32, expert.device()),
                        Tensor(token_offsets.shape(), DType::i32, expert.device())};
  run<FirstChoices>(expert.device(), first, expert, token_offsets);
  return first;
}

Kept drop_over_capacity(const Selection& chosen, const Tensor& scores, const Tensor& scope_offsets, int64_t k,
                        double factor, Drop rule) {
  const int64_t T = scores.shape(0), N = chosen.expert.size();
  check(N == T * k, "drop_over_capacity: ", N, " pairs of ", T, " tokens, expected k = ", k, " for each");
  const auto list = [&](int64_t n) { return Tensor({n}, DType::i32, scores.device()); };
  const Kept kept{{list(N), list(T + 1)}, list(N)};
  run<DropOverCapacity>(scores.device(), kept, chosen, scores, scope_offsets, k, factor, rule);
  return kept;
}

void ChoiceScores::cpu(const Tensor& choice, const Tensor& scores, const Tensor& bias, const PerToken& rule) {
  const int64_t E = scores.shape(1), groups = std::max<int64_t>(rule.groups, 1), size = E / groups;
  visit_accumulator(scores.dtype(), [&]<class T>() {
    const T* const in = scores.data<const T>().data();
    const T* const offset = bias ? bias.data<const T>().data() : nullptr;
    parallel_ranges(scores.shape(0), kTokens, [&](int64_t begin, int64_t end) {
      std::vector<T> group(static_cast<size_t>(groups));
      std::vector<int32_t> order(static_cast<size_t>(groups));
      for (int64_t t = begin; t < end; ++t) {
        T* const row = choice.data<T>().data() + t * E;
        for (int64_t e = 0; e < E; ++e) row[e] = offset ? in[t * E + e] + offset[e] : in[t * E + e];
        if (rule.groups == 0) continue;
        for (int64_t g = 0; g < groups; ++g)
          group[size_t(g)] = of_group<T>(size, rule.group_score, [&](int64_t i) { return row[g * size + i]; });
        std::iota(order.begin(), order.end(), 0);
        std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return group[size_t(a)] > group[size_t(b)]; });
        for (auto g = size_t(rule.groups_kept); g < order.size(); ++g)
          std::fill_n(row + order[g] * size, size, -std::numeric_limits<T>::infinity());
      }
    });
  });
}

void Steer::cpu(const Tensor& bias, const Tensor& chosen, double rate) {
  const auto n = chosen.data<const double>();
  double mean = 0;
  for (double count : n) mean += count / double(n.size());
  visit_accumulator(bias.dtype(), [&]<class T>() {
    for (size_t e = 0; e < n.size(); ++e) {
      const double sign = mean > n[e] ? 1 : mean < n[e] ? -1 : 0;
      bias.data<T>()[e] += T(rate * sign);
    }
  });
}

void FirstChoices::cpu(const Selection& first, const Tensor& expert, const Tensor& token_offsets) {
  const auto from = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>();
  const auto to = first.expert.data<int32_t>(), count = first.token_offsets.data<int32_t>();
  const size_t tokens = to.size();
  count[0] = 0;
  for (size_t t = 0; t < tokens; ++t) {
    const bool any = offset[t] < offset[t + 1];
    if (any) to[size_t(count[t])] = from[size_t(offset[t])];
    count[t + 1] = count[t] + any;
  }
  std::ranges::fill(to.subspan(size_t(count[tokens])), -1);
}

void DropOverCapacity::cpu(const Kept& kept, const Selection& chosen, const Tensor& scores, const Tensor& scope_offsets,
                           int64_t k, double factor, Drop rule) {
  const int64_t E = scores.shape(1), N = chosen.expert.size();
  const auto scope = scope_offsets.data<const int32_t>(), expert = chosen.expert.data<const int32_t>();
  std::vector<char> keeps(size_t(N), 1);
  parallel_tasks(int64_t(scope.size()) - 1, [&](int64_t s) {
    const int64_t first = scope[size_t(s)], last = scope[size_t(s) + 1];
    const auto most = size_t(std::ceil(room(factor, k, last - first, E)));
    if (rule == Drop::position) return drop_by_position(keeps, expert, E, first, last, k, most);
    visit_accumulator(scores.dtype(),
                      [&]<class S>() { drop_by_score<S>(keeps, expert, scores, first, last, k, most); });
  });

  const auto to = kept.selection.expert.data<int32_t>(), pair = kept.pair.data<int32_t>();
  const auto offset = kept.selection.token_offsets.data<int32_t>();
  int32_t n = 0;
  offset[0] = 0;
  for (int64_t i = 0; i < N; ++i) {
    if (keeps[size_t(i)]) {
      to[size_t(n)] = expert[size_t(i)];
      pair[size_t(n++)] = int32_t(i);
    }
    if ((i + 1) % k == 0) offset[size_t((i + 1) / k)] = n;
  }
  std::ranges::fill(to.subspan(size_t(n)), -1);
  std::ranges::fill(pair.subspan(size_t(n)), -1);
}

}  // namespace agon
