#pragma once
#include <span>

#include "autograd/parameter.h"

namespace agon {

/// The sum of the squares of all gradients, accumulated in f64 in a fixed order (a parameter's pieces of 16384 in
/// order, then the parameters in order). The global norm is its root, summed over ranks first where parameters are
/// spread over them.
double grad_square_sum(std::span<Parameter* const> parameters);

/// The first parameter whose gradient has an element that is not finite, or null.
const Parameter* first_non_finite(std::span<Parameter* const> parameters);

struct GradNorm {
  /// *sum = the squares of t summed.
  struct SquareSum {
    static void cpu(const Tensor& t, double* sum);
  };
  /// *finite = whether no element of t is infinite or NaN.
  struct AllFinite {
    static void cpu(const Tensor& t, bool* finite);
  };
};

}  // namespace agon
