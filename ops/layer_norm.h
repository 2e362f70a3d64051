#pragma once
#include "ops/normed.h"

namespace agon {

/// y = (x - mean) / sqrt(variance + epsilon) * gain + bias over the last axis: x [..., D], gain [D], bias [D] or none.
/// Statistics in f32. gain and bias may be f32 beside bf16. (Ba et al., arXiv 1607.06450.)
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon);
/// sum = x + residual, y = layer_norm(sum): the bits and the gradients of add() and layer_norm(), in one pass over
/// memory. A residual that is moved in and that nobody else holds gives its memory to the sum.
Normed add_layer_norm(const Tensor& x, Tensor residual, const Tensor& gain, const Tensor& bias, double epsilon);

struct LayerNorm {
  /// statistics [rows, 2] f32 (f64): the mean and 1 / sqrt(variance + epsilon).
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& statistics, const Tensor& x, const Tensor& gain, const Tensor& bias,
                    double epsilon);
    static void cuda(const Tensor& y, const Tensor& statistics, const Tensor& x, const Tensor& gain, const Tensor& bias,
                     double epsilon);
  };
  /// The same of sum = x + residual, which it makes on the way.
  struct Sum {
    static void cpu(const Tensor& sum, const Tensor& y, const Tensor& statistics, const Tensor& x,
                    const Tensor& residual, const Tensor& gain, const Tensor& bias, double epsilon);
    static void cuda(const Tensor& sum, const Tensor& y, const Tensor& statistics, const Tensor& x,
                     const Tensor& residual, const Tensor& gain, const Tensor& bias, double epsilon);
  };
  struct Input {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& statistics, const Tensor& gain);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& statistics, const Tensor& gain);
  };
  /// dgain and dbias, each added to what is there or written over it.
  struct Gain {
    static void cpu(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& statistics);
    static void cuda(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& statistics);
  };
  struct Bias {
    static void cpu(const Tensor& dbias, bool add, const Tensor& dy);
    static void cuda(const Tensor& dbias, bool add, const Tensor& dy);
  };
};

}  // namespace agon
