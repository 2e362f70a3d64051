#pragma once
#include <span>

#include "autograd/parameter.h"

namespace agon {

/// The sum of the squares of all gradients, accumulated in f64 in a fixed order. The global norm is its root, summed over
/// ranks first where parameters are spread over them.
double grad_square_sum(std::span<Parameter* const> parameters);

/// The first parameter whose gradient has an element that is not finite, or null.
const Parameter* first_non_finite(std::span<Parameter* const> parameters);

}  // namespace agon
