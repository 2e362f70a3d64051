#pragma once
#include "core/tensor.h"

// Differentiable weights of chosen pairs (expert [N] i32, token_offsets [T+1] i32 as in Pairs), from scores in f32
// (f64). Entries past the last pair are 0.

namespace agon {

/// How a weight is made of a score: as it is, over the sum of the token's chosen ones, or over the sum of all of them.
enum class WeightRule { raw, over_selected, over_all };

/// Each pair's score: scores [T, E] -> [N].
Tensor gather_scores(const Tensor& scores, const Tensor& expert, const Tensor& token_offsets);
/// Divided by the sum over the token's pairs plus `guard`: values [N] -> [N].
Tensor over_selected(const Tensor& values, const Tensor& token_offsets, double guard = 0);
/// Scores [T, E] -> weights [N] by the rule; `guard` is added to what is divided by.
Tensor weights_of(const Tensor& scores, WeightRule rule, const Tensor& expert, const Tensor& token_offsets,
                  double guard = 0);
/// Softmax over the token's pairs: values [N] -> [N].
Tensor softmax_selected(const Tensor& values, const Tensor& token_offsets);
/// Divided by the sum over the row plus `guard`: scores [T, E] -> [T, E].
Tensor over_all(const Tensor& scores, double guard = 0);
/// scores with the chosen pairs' entries replaced: scores [T, E], values [N] -> [T, E]. Both get their gradients.
Tensor with_values(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets);
/// y[i] = values[pair[i]], 0 where pair[i] is -1; no pair occurs twice: values [N], pair [N] i32 -> [N].
Tensor kept_values(const Tensor& values, const Tensor& pair);

}  // namespace agon
