#pragma once
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
  struct Forward {
    static void cpu(const Tensor& scores, const Tensor& rows, AnswerScore score);
  };
  /// drows[n] = dscores[n] ∂score/∂rows[n].
  struct Backward {
    static void cpu(const Tensor& drows, const Tensor& dscores, const Tensor& rows, AnswerScore score);
  };
};

}  // namespace agon
