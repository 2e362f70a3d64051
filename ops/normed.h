#pragma once
#include "core/tensor.h"

namespace agon {

/// What an op gives that adds a residual and norms the sum in one pass: both are outputs, differentiable each.
struct Normed {
  Tensor sum, y;  // [..., D]
};

}  // namespace agon
