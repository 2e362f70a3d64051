#include "moe/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/copy.h"
#include "moe/counts.h"
#include "moe/ordered_sum.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

Tensor count_all(const Tensor& expert, const Tensor& token_offsets, int64_t experts) {
  const Tensor everything = one_scope(token_offsets.size() - 1, expert.device());
  return count_experts(expert, token_offsets, everything, experts).reshape({experts});
}

double total(const Tensor& load) {
  double sum = 0;
  for (double n : load.data<const double>()) sum += n;
  return sum;
}

struct LoadFigures {
  double entropy, largest, dead, fairness, cv2;
};

LoadFigures figures_of(const Tensor& load) {
  const auto n = load.data<const double>();
  const double sum = total(load), experts = double(n.size());
  double entropy = 0, squares = 0, largest = 0, dead = 0;
  for (double v : n) {
    if (v > 0) entropy -= v / sum * std::log(v / sum);
    squares += v * v;
    largest = std::max(largest, v);
    dead += v == 0;
  }
  if (sum == 0) return {0, 0, dead, 0, 0};
  return {experts > 1 ? entropy / std::log(experts) : 1, largest * experts / sum, dead, sum * sum / (experts * squares),
          experts * squares / (sum * sum) - 1};
}

/// Mean entropy of the rows of p.
double mean_entropy(const Tensor& probabilities) {
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

/// The gap behind the k-th largest of row [E], 1 <= k < E.
template <class P>
double gap_behind(std::vector<P>& row, int64_t k) {
  std::nth_element(row.begin(), row.begin() + k, row.end(), std::greater<>());
  return double(*std::min_element(row.begin(), row.begin() + k) - row[size_t(k)]);
}

/// The sum over the tokens with 1 to E-1 chosen experts of the gap behind the last of them.
double gaps(const Tensor& probabilities, std::span<const int32_t> offset) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const auto chosen = [&](int64_t t) { return int64_t(offset[size_t(t) + 1] - offset[size_t(t)]); };
  return visit_accumulator(probabilities.dtype(), [&]<class P>() {
    const P* const p = probabilities.data<const P>().data();
    return ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      int64_t same = begin;  // tokens with as many experts as the first
      while (same < end && chosen(same) == chosen(begin)) ++same;
      if (const int64_t k = chosen(begin); same == end && k > 0 && k < E) {
        std::vector<int32_t> best(size_t((end - begin) * (k + 1)));
        std::vector<P> space(size_t(cpu::choice_space(E, k + 1)));
        cpu::choice_kernels<P>().top_k(best.data(), p + begin * E, end - begin, E, k + 1, space.data());
        for (int64_t t = begin; t < end; ++t) {
          const int32_t* const last = best.data() + (t - begin) * (k + 1) + k;
          sum += double(p[t * E + last[-1]] - p[t * E + last[0]]);
        }
        return sum;
      }
      std::vector<P> row(static_cast<size_t>(E));
      for (int64_t t = begin; t < end; ++t) {
        if (chosen(t) == 0 || chosen(t) == E) continue;
        std::copy_n(p + t * E, E, row.begin());
        sum += gap_behind(row, chosen(t));
      }
      return sum;
    });
  });
}

}  // namespace

void AddFigure::cpu(const Tensor& to, const Tensor& from, const Tensor& value, double divisor) {
  const auto old = from.data<const double>();
  std::ranges::copy(old, to.data<double>().begin());
  to.data<double>()[old.size()] = value.item() / divisor;
}

void Describe::cpu(const Tensor& values, const Tensor& load, const Tensor& chosen, const Tensor& probabilities,
                   const Tensor& token_offsets, const Tensor& chosen_offsets) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const auto value = values.data<double>();
  std::ranges::fill(value, kAbsent);
  const LoadFigures f = figures_of(load);
  value[kLoadEntropy] = f.entropy;
  value[kLoadMax] = f.largest;
  value[kDead] = f.dead;
  value[kFairness] = f.fairness;
  value[kLoadVariation] = f.cv2;
  const double before = total(chosen), after = total(load);
  value[kDropped] = before > 0 ? 1 - after / before : 0;
  if (T == 0) return;

  const auto offset = token_offsets.data<const int32_t>(), first = chosen_offsets.data<const int32_t>();
  std::vector<int64_t> tokens_with(static_cast<size_t>(E) + 1);
  int64_t with_gap = 0;
  for (size_t t = 0; t < size_t(T); ++t) {
    ++tokens_with[size_t(offset[t + 1] - offset[t])];
    const int32_t k = first[t + 1] - first[t];
    with_gap += k > 0 && k < E;
  }
  for (size_t n = 0; n < tokens_with.size(); ++n)
    if (tokens_with[n] > 0) value[kTokensWith + n] = double(tokens_with[n]) / double(T);
  value[kExpertsPerToken] = after / double(T);
  value[kEntropy] = mean_entropy(probabilities);
  if (with_gap > 0) value[kMargin] = gaps(probabilities, first) / double(with_gap);
}

std::map<std::string, double> load_figures(const Tensor& load) {
  const LoadFigures f = figures_of(load);
  return {{"load_entropy", f.entropy},
          {"load_max", f.largest},
          {"dead", f.dead},
          {"fairness", f.fairness},
          {"load_cv2", f.cv2}};
}

Statistics describe(const Pairs& pairs, const Tensor& probabilities) {
  const int64_t E = probabilities.shape(1);
  Statistics s;
  s.load = count_all(pairs.expert, pairs.token_offsets, E);
  s.chosen = pairs.chosen.id() == pairs.expert.id() ? s.load : count_all(pairs.chosen, pairs.chosen_offsets, E);
  std::vector<std::string>& names = s.figures.names;
  names = {"load_entropy", "load_max",          "dead",    "fairness", "load_cv2",
           "dropped",      "experts_per_token", "entropy", "margin"};
  for (int64_t n = 0; n <= E; ++n) names.push_back(text("tokens_with_", n));
  s.figures.values = Tensor({int64_t(names.size())}, DType::f64, probabilities.device());
  run<Describe>(probabilities.device(), s.figures.values, s.load, s.chosen, probabilities, pairs.token_offsets,
                pairs.chosen_offsets);
  return s;
}

void add_figure(Statistics& statistics, const std::string& name, const Tensor& value, double divisor) {
  Figures& figures = statistics.figures;
  check(value.size() == 1, "add_figure: expected one number for ", name, ", got ", value.shape());
  if (!figures.values) figures.values = Tensor({0}, DType::f64, value.device());
  const Tensor more({figures.values.size() + 1}, DType::f64, value.device());
  run<AddFigure>(value.device(), more, figures.values, value, divisor);
  figures.names.push_back(name);
  figures.values = more;
}

}  // namespace agon
