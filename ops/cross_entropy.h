#pragma once
#include "ops/linear_cross_entropy.h"

namespace agon {

/// The same loss from logits [T, V] that exist already. The logits become their own gradient when something records and
/// nobody else holds them, else the gradient takes a block of its own.
CrossEntropy cross_entropy(Tensor logits, const Tensor& target, double denominator);

}  // namespace agon
