#pragma once
#include "core/tensor.h"

// Differentiable weights of chosen pairs (expert [N] i32, token_offsets [T+1] i32 as in Pairs), from scores in f32
// (f64). Entries past the last pair are 0.

namespace agon {

/// Each pair's score: scores [T, E] -> [N].
Tensor gather_scores(const Tensor& scores, const Tensor& expert, const Tensor& token_offsets);
/// Divided by the sum over the token's pairs plus `guard`: values [N] -> [N].
Tensor over_selected(const Tensor& values, const Tensor& token_offsets, double guard = 0);
/// Divided by the sum over the row plus `guard`: scores [T, E] -> [T, E].
Tensor over_all(const Tensor& scores, double guard = 0);
/// y[i] = values[pair[i]], 0 where pair[i] is -1; no pair occurs twice: values [N], pair [N] i32 -> [N].
Tensor kept_values(const Tensor& values, const Tensor& pair);

}  // namespace agon
