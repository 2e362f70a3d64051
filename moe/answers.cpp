#include "moe/answers.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "core/parallel.h"

namespace agon {

namespace {

constexpr int64_t kRows = 32;  // of a task

/// max(v, 0) + log1p(exp(-|v|)): no overflow.
template <class A>
A softplus(A v) {
  return std::max(v, A(0)) + std::log1p(std::exp(-std::abs(v)));
}

template <class A>
A logistic(A v) {
  return A(1) / (A(1) + std::exp(-v));
}

/// The sum of f over a row.
template <class A, class T, class F>
A sum_of(const T* o, int64_t D, F f) {
  A sum = 0;
  for (int64_t d = 0; d < D; ++d) sum += f(A(o[d]));
  return sum;
}

template <class A, class T>
A score_of(const T* o, int64_t D, AnswerScore score) {
  switch (score) {
    case AnswerScore::softplus_mean:
      return sum_of<A>(o, D, softplus<A>) / A(D);
    case AnswerScore::l2_norm:
      return std::sqrt(sum_of<A>(o, D, [](A v) { return v * v; }));
    case AnswerScore::silu_mean:
      return sum_of<A>(o, D, [](A v) { return v * logistic(v); }) / A(D);
    case AnswerScore::relu_mean:
      return sum_of<A>(o, D, [](A v) { return v < A(0) ? A(0) : v; }) / A(D);  // NaN stays NaN
  }
  return A(0);
}

template <class A>
A slope_of(A v, AnswerScore score) {
  switch (score) {
    case AnswerScore::softplus_mean:
      return logistic(v);
    case AnswerScore::l2_norm:
      return v;
    case AnswerScore::silu_mean: {
      const A s = logistic(v);
      return s * (A(1) + v * (A(1) - s));
    }
    case AnswerScore::relu_mean:
      return v > A(0) ? A(1) : A(0);
  }
  return A(0);
}

}  // namespace

const std::vector<std::string>& answer_score_names() {
  static const std::vector<std::string> names{"softplus_mean", "l2_norm", "silu_mean", "relu_mean"};
  return names;
}

AnswerScore answer_score_named(const std::string& name) {
  const auto& names = answer_score_names();
  const auto found = std::ranges::find(names, name);
  check(found != names.end(), "no score of answers is called ", name);
  return AnswerScore(found - names.begin());
}

void AnswerScores::Forward::cpu(const Tensor& scores, const Tensor& rows, AnswerScore score) {
  const int64_t D = rows.shape(1);
  visit_float(rows.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const T* const o = rows.data<const T>().data();
    parallel_ranges(rows.shape(0), kRows, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) scores.data<A>()[size_t(n)] = score_of<A>(o + n * D, D, score);
    });
  });
}

void AnswerScores::Backward::cpu(const Tensor& drows, const Tensor& dscores, const Tensor& rows, AnswerScore score) {
  const int64_t D = rows.shape(1);
  visit_float(rows.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const T* const o = rows.data<const T>().data();
    T* const out = drows.data<T>().data();
    parallel_ranges(rows.shape(0), kRows, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const A over = score == AnswerScore::l2_norm ? std::max(score_of<A>(o + n * D, D, score), A(1e-12)) : A(D);
        const A each = dscores.data<const A>()[size_t(n)] / over;
        for (int64_t d = 0; d < D; ++d) out[n * D + d] = T(each * slope_of(A(o[n * D + d]), score));
      }
    });
  });
}

Tensor answer_scores(const Tensor& rows, AnswerScore score) {
  check(rows.shape().rank() == 2, "answer_scores: rows must be [N, D], got ", rows.shape());
  Tensor scores({rows.shape(0)}, accumulator_dtype(rows.dtype()), rows.device());
  run<AnswerScores::Forward>(rows.device(), scores, rows, score);
  return record("answer_scores", {&rows}, scores, [rows, score](Gradients& g, const Tensor& dscores) {
    Tensor drows(rows.shape(), rows.dtype(), rows.device());
    run<AnswerScores::Backward>(rows.device(), drows, dscores, rows, score);
    g.add(rows, drows);
  });
}

}  // namespace agon
