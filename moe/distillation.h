#pragma once
#include "core/tensor.h"

namespace agon {

/// How far the router is from the experts' verdict (CompeteSMoE, arXiv 2505.13380): the mean over (t, e) of (q - P)²,
/// plus theta times its mean over the chosen pairs, taken in each routing group (scope_offsets [G+1] i32) and weighed
/// by the group's tokens. q [T, E] on the tape, P [T, E] a constant; expert [N] i32, token_offsets [T+1] i32 -> [1] f32
/// (f64).
Tensor distillation(const Tensor& q, const Tensor& P, const Tensor& expert, const Tensor& token_offsets,
                    const Tensor& scope_offsets, double theta);

struct Distillation {
  struct Forward {
    static void cpu(const Tensor& loss, const Tensor& q, const Tensor& P, const Tensor& expert,
                    const Tensor& token_offsets, const Tensor& scope_offsets, double theta);
    static void cuda(const Tensor& loss, const Tensor& q, const Tensor& P, const Tensor& expert,
                     const Tensor& token_offsets, const Tensor& scope_offsets, double theta);
  };
  /// dq = dy (2 (q - P) / (T E) + theta [chosen] 2 (q - P) weight).
  struct Backward {
    static void cpu(const Tensor& dq, const Tensor& dy, const Tensor& q, const Tensor& P, const Tensor& expert,
                    const Tensor& token_offsets, const Tensor& scope_offsets, double theta);
    static void cuda(const Tensor& dq, const Tensor& dy, const Tensor& q, const Tensor& P, const Tensor& expert,
                     const Tensor& token_offsets, const Tensor& scope_offsets, double theta);
  };
};

}  // namespace agon
