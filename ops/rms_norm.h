#pragma once
#include "core/tensor.h"

namespace agon {

/// y = x / sqrt(mean(x²) + epsilon) * gain over the last axis: x [..., D], gain [D] -> [..., D]. Statistics in f32.
/// (Zhang & Sennrich, arXiv 1910.07467.) x may have another shape than its tape id had: [T, H, d] with gain [d] is qk-norm.
Tensor rms_norm(const Tensor& x, const Tensor& gain, double epsilon);

}  // namespace agon
