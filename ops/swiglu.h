#pragma once
#include "core/tensor.h"

namespace agon {

/// silu(gate) * up, where x = [gate | up] along the last axis: [N, 2F] -> [N, F].
Tensor swiglu(const Tensor& x);

}  // namespace agon
