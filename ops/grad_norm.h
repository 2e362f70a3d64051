#pragma once
#include <span>

#include "autograd/parameter.h"

namespace agon {

/// [1] f64 on the parameters' device: the sum of the squares of all gradients, accumulated in f64 in a fixed order (a
/// parameter's pieces of 16384 in order, then the parameters in order). The global norm is its root, summed over ranks
/// first where parameters are spread over them.
Tensor grad_square_sum(std::span<Parameter* const> parameters);

/// The first parameter whose gradient has an element that is not finite, or null. Waits for the device.
const Parameter* first_non_finite(std::span<Parameter* const> parameters);

struct GradNorm {
  /// sum[0] = the squares of all gradients summed.
  struct SquareSum {
    static void cpu(const Tensor& sum, std::span<Parameter* const> parameters);
    static void cuda(const Tensor& sum, std::span<Parameter* const> parameters);
  };
  /// *finite = whether no element of t is infinite or NaN.
  struct AllFinite {
    static void cpu(const Tensor& t, bool* finite);
    static void cuda(const Tensor& t, bool* finite);
  };
};

}  // namespace agon
