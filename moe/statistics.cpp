#include "moe/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "core/copy.h"
#include "moe/losses.h"
#include "moe/ordered_sum.h"

namespace agon {

namespace {

Tensor count_all(const Tensor& expert, const Tensor& token_offsets, int64_t experts) {
  const Tensor everything = tensor_of<int32_t>({0, int32_t(token_offsets.size() - 1)});
  return count_experts(expert, token_offsets, everything, experts).reshape({experts});
}

double total(const Tensor& load) {
  double sum = 0;
  for (double n : load.data<const double>()) sum += n;
  return sum;
}

struct Describe {
  /// Mean entropy of the rows of p.
  static double entropy(const Tensor& probabilities) {
    const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
    return visit_accumulator(probabilities.dtype(), [&]<class P>() {
      const P* const p = probabilities.data<const P>().data();
      return -ordered_sum(T, [&](int64_t begin, int64_t end) {
        double sum = 0;
        for (int64_t i = begin * E; i < end * E; ++i) sum += p[i] > P(0) ? double(p[i] * std::log(p[i])) : 0;
        return sum;
      }) / double(T);
    });
  }

  /// The sum over the tokens with 1 to E-1 chosen experts of the gap behind the last of them.
  static double gaps(const Tensor& probabilities, std::span<const int32_t> offset) {
    const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
    return visit_accumulator(probabilities.dtype(), [&]<class P>() {
      const P* const p = probabilities.data<const P>().data();
      return ordered_sum(T, [&](int64_t begin, int64_t end) {
        double sum = 0;
        std::vector<P> row(static_cast<size_t>(E));
        for (int64_t t = begin; t < end; ++t) {
          const int64_t k = offset[size_t(t) + 1] - offset[size_t(t)];
          if (k == 0 || k == E) continue;
          std::copy_n(p + t * E, E, row.begin());
          std::nth_element(row.begin(), row.begin() + k, row.end(), std::greater<>());
          sum += double(*std::min_element(row.begin(), row.begin() + k) - row[size_t(k)]);
        }
        return sum;
      });
    });
  }
};

}  // namespace

std::map<std::string, double> load_figures(const Tensor& load) {
  const auto n = load.data<const double>();
  const double sum = total(load), experts = double(n.size());
  double entropy = 0, squares = 0, largest = 0, dead = 0;
  for (double v : n) {
    if (v > 0) entropy -= v / sum * std::log(v / sum);
    squares += v * v;
    largest = std::max(largest, v);
    dead += v == 0;
  }
  if (sum == 0) return {{"load_entropy", 0}, {"load_max", 0}, {"dead", dead}, {"fairness", 0}, {"load_cv2", 0}};
  return {{"load_entropy", experts > 1 ? entropy / std::log(experts) : 1},
          {"load_max", largest * experts / sum},
          {"dead", dead},
          {"fairness", sum * sum / (experts * squares)},
          {"load_cv2", experts * squares / (sum * sum) - 1}};
}

Statistics describe(const Pairs& pairs, const Tensor& probabilities) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  Statistics s;
  s.load = count_all(pairs.expert, pairs.token_offsets, E);
  s.chosen = pairs.chosen.id() == pairs.expert.id() ? s.load : count_all(pairs.chosen, pairs.chosen_offsets, E);
  s.scalars = load_figures(s.load);
  const double chosen = total(s.chosen), load = total(s.load);
  s.scalars["dropped"] = chosen > 0 ? 1 - load / chosen : 0;
  if (T == 0) return s;

  const auto offset = pairs.token_offsets.data<const int32_t>(), before = pairs.chosen_offsets.data<const int32_t>();
  std::vector<int64_t> tokens_with(static_cast<size_t>(E) + 1);
  int64_t with_gap = 0;
  for (size_t t = 0; t < size_t(T); ++t) {
    ++tokens_with[size_t(offset[t + 1] - offset[t])];
    const int32_t k = before[t + 1] - before[t];
    with_gap += k > 0 && k < E;
  }
  for (size_t n = 0; n < tokens_with.size(); ++n)
    if (tokens_with[n] > 0) s.scalars[text("tokens_with_", n)] = double(tokens_with[n]) / double(T);
  s.scalars["experts_per_token"] = load / double(T);
  s.scalars["entropy"] = Describe::entropy(probabilities);
  if (with_gap > 0) s.scalars["margin"] = Describe::gaps(probabilities, before) / double(with_gap);
  return s;
}

}  // namespace agon
