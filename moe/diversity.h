#pragma once
#include "moe/routing.h"

namespace agon {

/// How alike the answers are that one token gets (CompeteSMoE, arXiv 2505.13380): the mean over ordered pairs of its
/// rows of their cosine, averaged over the tokens with at least two in each routing group (scope_offsets [G+1] i32),
/// and over the groups by their tokens. rows [N, D] sorted as `plan` says -> [1] f32 (f64). 0 where no token has two.
/// The released code divides by k² instead of k (k - 1).
Tensor diversity(const Tensor& rows, const Plan& plan, const Tensor& scope_offsets);

struct Diversity {
  struct Forward {
    static void cpu(const Tensor& loss, const Tensor& rows, const Plan& plan, const Tensor& scope_offsets);
    static void cuda(const Tensor& loss, const Tensor& rows, const Plan& plan, const Tensor& scope_offsets);
  };
  /// drow = 2 dy weight / (n (n - 1)) · (G - u <u, G>) / ‖o‖, u the unit row of n, G the sum of the token's other ones.
  struct Backward {
    static void cpu(const Tensor& drows, const Tensor& dy, const Tensor& rows, const Plan& plan,
                    const Tensor& scope_offsets);
    static void cuda(const Tensor& drows, const Tensor& dy, const Tensor& rows, const Plan& plan,
                     const Tensor& scope_offsets);
  };
};

}  // namespace agon
