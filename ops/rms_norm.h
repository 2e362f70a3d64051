#pragma once
#include "ops/normed.h"

namespace agon {

/// y = x / sqrt(mean(x²) + epsilon) * gain over the last axis: x [..., D], gain [D] -> [..., D]. Statistics in f32.
/// (Zhang & Sennrich, arXiv 1910.07467.) x may have another shape than its tape id had: [T, H, d] with gain [d] is
/// qk-norm. gain may be f32 beside bf16.
Tensor rms_norm(const Tensor& x, const Tensor& gain, double epsilon);
/// sum = x + residual, y = rms_norm(sum): the bits and the gradients of add() and rms_norm(), in one pass over
/// memory. A residual that is moved in and that nobody else holds gives its memory to the sum.
Normed add_rms_norm(const Tensor& x, Tensor residual, const Tensor& gain, double epsilon);

struct RmsNorm {
  /// inverse [rows] f32 (f64): 1 / sqrt(mean(x²) + epsilon).
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& gain, double epsilon);
    static void cuda(const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& gain, double epsilon);
  };
  /// The same of sum = x + residual, which it makes on the way.
  struct Sum {
    static void cpu(const Tensor& sum, const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& residual,
                    const Tensor& gain, double epsilon);
    static void cuda(const Tensor& sum, const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& residual,
                     const Tensor& gain, double epsilon);
  };
  struct Input {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& inverse, const Tensor& gain);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& inverse, const Tensor& gain);
  };
  /// dgain, added to what is there or written over it.
  struct Gain {
    static void cpu(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& inverse);
    static void cuda(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& inverse);
  };
};

}  // namespace agon
