#pragma once
#include "core/tensor.h"

namespace agon {

/// Sum and mean of all elements: [1], f32 for f32 and bf16 (f64 for f64). Fixed order: pieces of 4096 summed in order,
/// then the pieces in order; on a GPU the threads of a block share a piece. Of no elements: 0.
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);
/// Mean over the rows: [T, E] -> [E], f32 for f32 and bf16 (f64 for f64). Fixed order: pieces of 256 rows summed in
/// order, then the pieces in order; ops/cuda/column_sums.cuh on a GPU. Of no rows: 0.
Tensor column_mean(const Tensor& x);

struct Reduce {
  /// y[0] = factor * the sum of x.
  struct All {
    static void cpu(const Tensor& y, const Tensor& x, double factor);
    static void cuda(const Tensor& y, const Tensor& x, double factor);
  };
  /// dx[i] = factor * dy[0].
  struct Spread {
    static void cpu(const Tensor& dx, const Tensor& dy, double factor);
    static void cuda(const Tensor& dx, const Tensor& dy, double factor);
  };
  /// y[e] = factor * the sum of x[., e].
  struct Columns {
    static void cpu(const Tensor& y, const Tensor& x, double factor);
    static void cuda(const Tensor& y, const Tensor& x, double factor);
  };
  /// dx[t, e] = factor * dy[e].
  struct SpreadColumns {
    static void cpu(const Tensor& dx, const Tensor& dy, double factor);
    static void cuda(const Tensor& dx, const Tensor& dy, double factor);
  };
};

}  // namespace agon
