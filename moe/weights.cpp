#include "moe/weights.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/parallel.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 128, kPairs = 4096;  // of a task

Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype(), x.device()); }

int64_t tokens_of(const Tensor& token_offsets) { return token_offsets.size() - 1; }

/// Calls f(t, i) for the pairs i of each token t, and zeroes the entries of `per_pair` past the last pair.
template <class T, class F>
void each_pair(const Tensor& per_pair, const Tensor& token_offsets, F&& f) {
  const auto offset = token_offsets.data<const int32_t>();
  parallel_ranges(tokens_of(token_offsets), kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i) f(t, i);
  });
  std::ranges::fill(per_pair.data<T>().subspan(size_t(offset.back())), T(0));
}

Tensor shares(const char* name, const Tensor& x, const Tensor& offsets, double guard) {
  Tensor y = like(x);
  const Tensor sums({tokens_of(offsets)}, x.dtype(), x.device());
  run<Shares::Forward>(x.device(), y, sums, x, offsets, guard);
  return record(name, {&x}, y, [x = x.without_data(), y, sums, offsets](Gradients& g, const Tensor& dy) {
    Tensor dx = like(y);
    run<Shares::Backward>(y.device(), dx, dy, y, sums, offsets);
    g.add(x, dx);
  });
}

}  // namespace

void GatherScores::Forward::cpu(const Tensor& values, const Tensor& scores, const Tensor& expert,
                                const Tensor& token_offsets) {
  const int64_t E = scores.shape(1);
  const auto expert_of = expert.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class T>() {
    const auto to = values.data<T>();
    const auto from = scores.data<const T>();
    each_pair<T>(values, token_offsets,
                 [&](int64_t t, int64_t i) { to[size_t(i)] = from[size_t(t * E + expert_of[size_t(i)])]; });
  });
}

void GatherScores::Backward::cpu(const Tensor& dscores, const Tensor& dvalues, const Tensor& expert,
                                 const Tensor& token_offsets) {
  const int64_t E = dscores.shape(1);
  const auto expert_of = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>();
  visit_accumulator(dscores.dtype(), [&]<class T>() {
    const auto from = dvalues.data<const T>();
    parallel_ranges(dscores.shape(0), kTokens, [&](int64_t begin, int64_t end) {
      std::fill_n(dscores.data<T>().data() + begin * E, (end - begin) * E, T(0));
      for (int64_t t = begin; t < end; ++t)
        for (int64_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
          dscores.data<T>()[size_t(t * E + expert_of[size_t(i)])] += from[size_t(i)];
    });
  });
}

void Shares::Forward::cpu(const Tensor& y, const Tensor& sums, const Tensor& x, const Tensor& offsets, double guard) {
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(x.dtype(), [&]<class T>() {
    const auto in = x.data<const T>();
    const auto sum = sums.data<T>();
    parallel_ranges(tokens_of(offsets), kTokens, [&](int64_t begin, int64_t end) {
      for (auto t = size_t(begin); t < size_t(end); ++t) {
        T total = 0;
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) total += in[i];
        sum[t] = total + T(guard);
      }
    });
    each_pair<T>(y, offsets, [&](int64_t t, int64_t i) { y.data<T>()[size_t(i)] = in[size_t(i)] / sum[size_t(t)]; });
  });
}

void Shares::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& sums,
                           const Tensor& offsets) {
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(y.dtype(), [&]<class T>() {
    const auto out = dx.data<T>();
    const auto share = y.data<const T>(), slope = dy.data<const T>(), sum = sums.data<const T>();
    parallel_ranges(tokens_of(offsets), kTokens, [&](int64_t begin, int64_t end) {
      for (auto t = size_t(begin); t < size_t(end); ++t) {
        T mean = 0;
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) mean += share[i] * slope[i];
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) out[i] = (slope[i] - mean) / sum[t];
      }
    });
    std::ranges::fill(out.subspan(size_t(offset.back())), T(0));
  });
}

void SoftmaxSelected::Forward::cpu(const Tensor& y, const Tensor& x, const Tensor& offsets) {
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(x.dtype(), [&]<class T>() {
    const auto in = x.data<const T>();
    const auto out = y.data<T>();
    parallel_ranges(tokens_of(offsets), kTokens, [&](int64_t begin, int64_t end) {
      for (auto t = size_t(begin); t < size_t(end); ++t) {
        const auto first = size_t(offset[t]), last = size_t(offset[t + 1]);
        if (first == last) continue;
        T most = in[first], sum = 0;
        for (size_t i = first; i < last; ++i) most = std::max(most, in[i]);
        for (size_t i = first; i < last; ++i) sum += out[i] = std::exp(in[i] - most);
        for (size_t i = first; i < last; ++i) out[i] /= sum;
      }
    });
    std::ranges::fill(out.subspan(size_t(offset.back())), T(0));
  });
}

void SoftmaxSelected::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& offsets) {
  const auto offset = offsets.data<const int32_t>();
  visit_accumulator(y.dtype(), [&]<class T>() {
    const auto out = dx.data<T>();
    const auto share = y.data<const T>(), slope = dy.data<const T>();
    parallel_ranges(tokens_of(offsets), kTokens, [&](int64_t begin, int64_t end) {
      for (auto t = size_t(begin); t < size_t(end); ++t) {
        T mean = 0;
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) mean += share[i] * slope[i];
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) out[i] = share[i] * (slope[i] - mean);
      }
    });
    std::ranges::fill(out.subspan(size_t(offset.back())), T(0));
  });
}

void ReplaceScores::cpu(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets) {
  const int64_t E = scores.shape(1);
  const auto expert_of = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>();
  visit_accumulator(scores.dtype(), [&]<class T>() {
    const T* const from = values ? values.data<const T>().data() : nullptr;
    parallel_ranges(scores.shape(0), kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
          scores.data<T>()[size_t(t * E + expert_of[size_t(i)])] = from ? from[i] : T(0);
    });
  });
}

void KeptValues::Forward::cpu(const Tensor& y, const Tensor& x, const Tensor& pair) {
  const auto from = pair.data<const int32_t>();
  visit_accumulator(x.dtype(), [&]<class T>() {
    parallel_ranges(int64_t(from.size()), kPairs, [&](int64_t begin, int64_t end) {
      for (auto i = size_t(begin); i < size_t(end); ++i)
        y.data<T>()[i] = from[i] < 0 ? T(0) : x.data<const T>()[size_t(from[i])];
    });
  });
}

void KeptValues::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& pair) {
  const auto to = pair.data<const int32_t>();
  dx.zero();
  visit_accumulator(dx.dtype(), [&]<class T>() {
    parallel_ranges(int64_t(to.size()), kPairs, [&](int64_t begin, int64_t end) {
      for (auto i = size_t(begin); i < size_t(end); ++i)
        if (to[i] >= 0) dx.data<T>()[size_t(to[i])] = dy.data<const T>()[i];
    });
  });
}

Tensor gather_scores(const Tensor& scores, const Tensor& expert, const Tensor& token_offsets) {
  check(scores.shape().rank() == 2 && scores.shape(0) == tokens_of(token_offsets), "gather_scores: scores ",
        scores.shape(), " beside pairs of ", tokens_of(token_offsets), " tokens");
  Tensor values(expert.shape(), scores.dtype(), scores.device());
  run<GatherScores::Forward>(scores.device(), values, scores, expert, token_offsets);
  return record("gather_scores", {&scores}, values,
                [scores = scores.without_data(), expert, token_offsets](Gradients& g, const Tensor& dy) {
                  Tensor dscores = like(scores);
                  run<GatherScores::Backward>(dy.device(), dscores, dy, expert, token_offsets);
                  g.add(scores, dscores);
                });
}

Tensor over_selected(const Tensor& values, const Tensor& token_offsets, double guard) {
  return shares("over_selected", values, token_offsets, guard);
}

Tensor weights_of(const Tensor& scores, WeightRule rule, const Tensor& expert, const Tensor& token_offsets,
                  double guard) {
  if (rule == WeightRule::over_all) return gather_scores(over_all(scores, guard), expert, token_offsets);
  const Tensor values = gather_scores(scores, expert, token_offsets);
  return rule == WeightRule::raw ? values : over_selected(values, token_offsets, guard);
}

Tensor softmax_selected(const Tensor& values, const Tensor& token_offsets) {
  Tensor y = like(values);
  run<SoftmaxSelected::Forward>(values.device(), y, values, token_offsets);
  return record("softmax_selected", {&values}, y,
                [values = values.without_data(), y, token_offsets](Gradients& g, const Tensor& dy) {
                  Tensor dvalues = like(y);
                  run<SoftmaxSelected::Backward>(y.device(), dvalues, dy, y, token_offsets);
                  g.add(values, dvalues);
                });
}

Tensor with_values(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets) {
  check(scores.shape().rank() == 2 && scores.shape(0) == tokens_of(token_offsets) && values.shape() == expert.shape(),
        "with_values: scores ", scores.shape(), " and values ", values.shape(), " of pairs ", expert.shape());
  Tensor y = clone(scores);
  run<ReplaceScores>(scores.device(), y, values, expert, token_offsets);
  return record("with_values", {&scores, &values}, y,
                [scores = scores.without_data(), values = values.without_data(), expert, token_offsets](
                    Gradients& g, const Tensor& dy) {
                  if (g.wants(values)) {
                    Tensor dvalues = like(values);
                    run<GatherScores::Forward>(dy.device(), dvalues, dy, expert, token_offsets);
                    g.add(values, dvalues);
                  }
                  if (!g.wants(scores)) return;
                  Tensor dscores = clone(dy);
                  run<ReplaceScores>(dy.device(), dscores, Tensor(), expert, token_offsets);
                  g.add(scores, dscores);
                });
}

Tensor over_all(const Tensor& scores, double guard) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  const Tensor offsets({T + 1}, DType::i32, scores.device());
  fill_steps(offsets, 0, E);
  return shares("over_all", scores, offsets, guard);
}

Tensor kept_values(const Tensor& values, const Tensor& pair) {
  check(values.shape() == pair.shape(), "kept_values: values ", values.shape(), " beside pairs ", pair.shape());
  Tensor y = like(values);
  run<KeptValues::Forward>(values.device(), y, values, pair);
  return record("kept_values", {&values}, y, [values = values.without_data(), pair](Gradients& g, const Tensor& dy) {
    Tensor dvalues = like(dy);
    run<KeptValues::Backward>(dy.device(), dvalues, dy, pair);
    g.add(values, dvalues);
  });
}

}  // namespace agon
