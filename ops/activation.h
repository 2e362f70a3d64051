#pragma once
#include "core/tensor.h"

namespace agon {

/// x * Φ(x), Φ the standard normal distribution function (erf, not the tanh approximation), elementwise.
Tensor gelu(const Tensor& x);
/// max(x, 0); the derivative at 0 is 0.
Tensor relu(const Tensor& x);
/// 1 / (1 + exp(-x)).
Tensor sigmoid(const Tensor& x);

}  // namespace agon
