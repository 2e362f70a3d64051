#pragma once
#include "core/tensor.h"

namespace agon {

/// Softmax over the last axis.
Tensor softmax(const Tensor& x);

struct Softmax {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x);
    static void cuda(const Tensor& y, const Tensor& x);
  };
  struct Backward {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& y);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& y);
  };
};

}  // namespace agon
