#pragma once
#include "core/tensor.h"

namespace agon {

/// Sum and mean of all elements: [1], f32 for f32 and bf16 (f64 for f64). Fixed order: pieces of 4096 summed in order,
/// then the pieces in order.
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);
/// Mean over the rows: [T, E] -> [E].
Tensor column_mean(const Tensor& x);

}  // namespace agon
