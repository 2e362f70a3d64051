#pragma once
#include "core/tensor.h"

namespace agon {

/// y[n] = rows[n] w[e]ᵀ (+ bias[e]) for the rows n in [offsets[e], offsets[e+1]) of each group e:
/// rows [N, I], w [e, O, I], offsets [e+1] i32 ascending, bias [e, O] or none -> y [N, O]. Rows from offsets[e] on (N
/// may be a bound) are zero in y and in the gradient. Any group may be empty.
Tensor grouped_linear(const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias = {});

struct GroupedLinear {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias);
    static void cuda(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias);
  };
  struct Input {
    static void cpu(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets);
    static void cuda(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets);
  };
  /// dw[e] = dy[group e]ᵀ rows[group e], added to what is there or written over it (0 for an empty group).
  struct Weight {
    static void cpu(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows, const Tensor& offsets);
    static void cuda(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows, const Tensor& offsets);
  };
  struct Bias {
    static void cpu(const Tensor& dbias, bool add, const Tensor& dy, const Tensor& offsets);
    static void cuda(const Tensor& dbias, bool add, const Tensor& dy, const Tensor& offsets);
  };
};

}  // namespace agon
