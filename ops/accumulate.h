#pragma once
#include "core/tensor.h"

namespace agon {

/// sum[i] += x[i], without a gradient: sum f64, x of any float dtype, of equal sizes, on one device.
void accumulate(const Tensor& sum, const Tensor& x);

struct Accumulate {
  static void cpu(const Tensor& sum, const Tensor& x);
  static void cuda(const Tensor& sum, const Tensor& x);
};

}  // namespace agon
