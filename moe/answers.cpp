#include "moe/answers.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

constexpr int64_t kRows = 32;  // of a task

/// The sum over a row of what its score adds up.
template <class A, class T>
A sum_of(const T* o, int64_t D, AnswerScore score) {
  const cpu::RowKernels<T>& row = cpu::row_kernels<T>();
  switch (score) {
    case AnswerScore::softplus_mean:
      return row.softplus_sum(o, D);
    case AnswerScore::l2_norm:
      return row.dot(o, o, D);
    case AnswerScore::silu_mean:
      return row.silu_sum(o, D);
    case AnswerScore::relu_mean:
      return row.relu_sum(o, D);
  }
  return 0;
}

/// A row's gradient: `each` times the slopes of the terms.
template <class A, class T>
void slopes_of(T* out, const T* o, A each, int64_t D, AnswerScore score) {
  const cpu::RowKernels<T>& row = cpu::row_kernels<T>();
  switch (score) {
    case AnswerScore::softplus_mean:
      return row.softplus_slopes(out, o, each, D);
    case AnswerScore::l2_norm:
      return row.scale(out, o, each, D);
    case AnswerScore::silu_mean:
      return row.silu_slopes(out, o, each, D);
    case AnswerScore::relu_mean:
      for (int64_t d = 0; d < D; ++d) out[d] = T(each * AnswerScores::slope(A(o[d]), score));
  }
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

template <class T>
Accumulator<T> AnswerScores::of_row(const T* answer, int64_t D, AnswerScore score) {
  return finish(sum_of<Accumulator<T>>(answer, D, score), D, score);
}
template float AnswerScores::of_row(const float*, int64_t, AnswerScore);
template float AnswerScores::of_row(const bf16*, int64_t, AnswerScore);
template double AnswerScores::of_row(const double*, int64_t, AnswerScore);

template <class T>
void AnswerScores::slopes_of_row(T* danswer, const T* answer, Accumulator<T> dscore, int64_t D, AnswerScore score) {
  using A = Accumulator<T>;
  const A sum = score == AnswerScore::l2_norm ? sum_of<A>(answer, D, score) : A(0);
  slopes_of(danswer, answer, dscore / divisor(sum, D, score), D, score);
}
template void AnswerScores::slopes_of_row(float*, const float*, float, int64_t, AnswerScore);
template void AnswerScores::slopes_of_row(bf16*, const bf16*, float, int64_t, AnswerScore);
template void AnswerScores::slopes_of_row(double*, const double*, double, int64_t, AnswerScore);

void AnswerScores::Forward::cpu(const Tensor& scores, const Tensor& rows, AnswerScore score) {
  const int64_t D = rows.shape(1);
  visit_float(rows.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const T* const o = rows.data<const T>().data();
    parallel_ranges(rows.shape(0), kRows, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) scores.data<A>()[size_t(n)] = of_row(o + n * D, D, score);
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
      for (int64_t n = begin; n < end; ++n)
        slopes_of_row(out + n * D, o + n * D, dscores.data<const A>()[size_t(n)], D, score);
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
