#pragma once
#include "core/tensor.h"

namespace agon {

/// silu(gate) * up, where x = [gate | up] along the last axis: [N, 2F] -> [N, F].
Tensor swiglu(const Tensor& x);

struct Swiglu {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x);
    static void cuda(const Tensor& y, const Tensor& x);
  };
  struct Backward {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& x);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& x);
  };
};

}  // namespace agon
