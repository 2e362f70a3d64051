#pragma once
#include "core/tensor.h"

namespace agon {

/// The part [n, m] of a matrix that starts at (row, column), in a tensor of its own, and back; floats are rounded to
/// the dtype they go to.
struct MatrixPart {
  struct Take {
    static void cpu(const Tensor& part, const Tensor& whole, int64_t row, int64_t column);
    static void cuda(const Tensor& part, const Tensor& whole, int64_t row, int64_t column);
  };
  struct Put {
    static void cpu(const Tensor& whole, const Tensor& part, int64_t row, int64_t column);
    static void cuda(const Tensor& whole, const Tensor& part, int64_t row, int64_t column);
  };
};

/// Rows [first, first + n) of a matrix, in the same block; no gradient.
inline Tensor some_rows(const Tensor& x, int64_t first, int64_t n) {
  return x.part(first * x.shape(1), n * x.shape(1)).reshape({n, x.shape(1)});
}

}  // namespace agon
