#pragma once
#include "core/tensor.h"

namespace agon {

/// y = (x - mean) / sqrt(variance + epsilon) * gain + bias over the last axis: x [..., D], gain [D], bias [D] or none.
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon);

}  // namespace agon
