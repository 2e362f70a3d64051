#pragma once
#include "moe/routing.h"

// Movement between tokens, pairs and rows (routing.h), all differentiable. permute and combine are adjoint to each
// other, by_row and by_pair likewise: one plan serves all four directions. Rows and pairs past the last one in use are
// zero.

namespace agon {

/// Each pair's token, rows sorted by expert: x [T, D] -> [N, D].
Tensor permute(const Tensor& x, const Plan& plan);
/// The sum of each token's rows, in the order of its pairs: rows [N, D] -> [T, D]. A token without pairs gets 0.
Tensor combine(const Tensor& rows, const Plan& plan);
/// The weighted sum of each token's rows: weight [N] per pair, f32 beside f32 or bf16 rows, f64 beside f64.
Tensor combine(const Tensor& rows, const Tensor& weight, const Plan& plan);

/// What belongs to pairs ([N] or [N, D]) in the order of rows, and the other way round.
Tensor by_row(const Tensor& of_pairs, const Plan& plan);
Tensor by_pair(const Tensor& of_rows, const Plan& plan);

struct Dispatch {
  /// rows[n] = x[token of row n].
  struct Permute {
    static void cpu(const Tensor& rows, const Tensor& x, const Plan& plan);
    static void cuda(const Tensor& rows, const Tensor& x, const Plan& plan);
  };
  /// y[t] = sum of (weight[i] times, unless weight is empty) rows[row of pair i] over the pairs i of t, ascending.
  struct Combine {
    static void cpu(const Tensor& y, const Tensor& rows, const Tensor& weight, const Plan& plan);
    static void cuda(const Tensor& y, const Tensor& rows, const Tensor& weight, const Plan& plan);
  };
  /// drows[n] = weight[i] dy[t]; dweight[i] = <rows[n], dy[t]> for the pair i = (t, .) of row n.
  struct CombineBackward {
    static void cpu(const Tensor& drows, const Tensor& dweight, const Tensor& dy, const Tensor& rows,
                    const Tensor& weight, const Plan& plan);
    static void cuda(const Tensor& drows, const Tensor& dweight, const Tensor& dy, const Tensor& rows,
                     const Tensor& weight, const Plan& plan);
  };
  /// y[n] = x[index[n]], 0 where index[n] is negative or n is not below the length of index.
  struct Gather {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& index);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& index);
  };
};

}  // namespace agon
