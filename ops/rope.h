#pragma once
#include "core/tensor.h"

namespace agon {

/// Rotary position embedding (arXiv 2104.09864) in the half-split layout of Llama and Mixtral: for i < d/2 the pair
/// (x[i], x[i + d/2]) turns by position * theta^(-2i/d). x [T, H, d], position [T] i32 -> [T, H, d]; d even.
Tensor rope(const Tensor& x, const Tensor& position, double theta);

struct Rope {
  /// Turns forwards (direction 1) or back (direction -1): the gradient is the inverse rotation.
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& position, double theta, int direction);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& position, double theta, int direction);
  };
};

}  // namespace agon
