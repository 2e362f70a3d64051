#pragma once
#include "core/tensor.h"

namespace agon {

// Elementwise arithmetic on tensors of equal shape and dtype; each differentiable in all its tensors.
Tensor add(const Tensor& a, const Tensor& b);
Tensor subtract(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, double factor);
/// x in another dtype; the gradient comes back in the dtype of x.
Tensor cast(const Tensor& x, DType dtype);
/// x [..., D] * gain [..., 1]: each row times its own number; gain has x.size() / D elements and may be f32 beside bf16.
Tensor scale_rows(const Tensor& x, const Tensor& gain);

}  // namespace agon
