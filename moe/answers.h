#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/tensor.h"

// How strongly an expert answers: a score of its output o [D] (CompeteSMoE, arXiv 2505.13380).

namespace agon {

/// mean_d softplus(o_d) | ‖o‖ (the first version of the paper) | mean_d silu(o_d) | mean_d max(o_d, 0).
enum class AnswerScore { softplus_mean, l2_norm, silu_mean, relu_mean };
AnswerScore answer_score_named(const std::string& name);
/// Their names, the default first.
const std::vector<std::string>& answer_score_names();

/// The score of every row: rows [N, D] -> [N] f32 (f64).
Tensor answer_scores(const Tensor& rows, AnswerScore score);

struct AnswerScores {
  /// What a score adds up over the elements v of a row, before the mean or the root.
  template <class A>
  static constexpr A term(A v, AnswerScore score) {
    switch (score) {
      case AnswerScore::softplus_mean:
        return std::max(v, A(0)) + std::log1p(std::exp(-std::abs(v)));  // does not overflow
      case AnswerScore::l2_norm:
        return v * v;
      case AnswerScore::silu_mean:
        return v * logistic(v);
      case AnswerScore::relu_mean:
        return v < A(0) ? A(0) : v;  // NaN stays NaN
    }
    return A(0);
  }
  /// The score of a row of D elements from the sum of their terms.
  template <class A>
  static constexpr A finish(A sum, int64_t D, AnswerScore score) {
    return score == AnswerScore::l2_norm ? std::sqrt(sum) : sum / A(D);
  }
  /// What dscore is divided by, and the slope of an element it is then multiplied by.
  template <class A>
  static constexpr A divisor(A sum, int64_t D, AnswerScore score) {
    return score == AnswerScore::l2_norm ? std::max(std::sqrt(sum), A(1e-12)) : A(D);
  }
  template <class A>
  static constexpr A slope(A v, AnswerScore score) {
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

  /// The score of one row, on the CPU.
  template <class T>
  static Accumulator<T> of_row(const T* answer, int64_t D, AnswerScore score);
  /// Its gradient from that of the score, on the CPU; danswer may be answer.
  template <class T>
  static void slopes_of_row(T* danswer, const T* answer, Accumulator<T> dscore, int64_t D, AnswerScore score);

  struct Forward {
    static void cpu(const Tensor& scores, const Tensor& rows, AnswerScore score);
    static void cuda(const Tensor& scores, const Tensor& rows, AnswerScore score);
  };
  /// drows[n] = dscores[n] ∂score/∂rows[n]. drows may be rows.
  struct Backward {
    static void cpu(const Tensor& drows, const Tensor& dscores, const Tensor& rows, AnswerScore score);
    static void cuda(const Tensor& drows, const Tensor& dscores, const Tensor& rows, AnswerScore score);
  };

 private:
  template <class A>
  static constexpr A logistic(A v) {
    return A(1) / (A(1) + std::exp(-v));
  }
};

}  // namespace agon
