#pragma once
#include "core/tensor.h"

namespace agon {

/// y = x wᵀ (+ bias): x [..., I], w [O, I], bias [O] or none -> y [..., O]. y has the dtype of x, or f32 where w is f32
/// and x bf16 (the router's product).
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {});

/// On a GPU f32 is multiplied as f32 (ops/cuda/cublas.h); where only w is f32, as three bf16 terms of each f32 number,
/// on tensor cores and summed in f32.
struct Linear {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias);
  };
  /// dx = dy w.
  struct Input {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& w);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& w);
  };
  /// dw = dyᵀ x, dbias = column sums of dy (none: empty), each added to what is there or written over it.
  struct Weight {
    static void cpu(const Tensor& dw, bool add, const Tensor& dy, const Tensor& x);
    static void cuda(const Tensor& dw, bool add, const Tensor& dy, const Tensor& x);
  };
  struct Bias {
    static void cpu(const Tensor& dbias, bool add, const Tensor& dy);
    static void cuda(const Tensor& dbias, bool add, const Tensor& dy);
  };
};

}  // namespace agon
