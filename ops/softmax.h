#pragma once
#include "core/tensor.h"

namespace agon {

/// Softmax over the last axis.
Tensor softmax(const Tensor& x);

}  // namespace agon
