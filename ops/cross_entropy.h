#pragma once
#include "ops/linear_cross_entropy.h"

namespace agon {

/// The same loss from logits [T, V] that exist already. The logits become their own gradient when something records and
/// nobody else holds them, else the gradient takes a block of its own. On a GPU, where nothing can be thrown, a target
/// that is not below V makes the loss NaN.
CrossEntropy cross_entropy(Tensor logits, const Tensor& target, double denominator);

/// result.per_token and, unless it is none, `gradient` [T, V], which may be `logits` itself.
struct CrossEntropyForward {
  static void cpu(const CrossEntropy& result, const Tensor& gradient, const Tensor& logits, const Tensor& target,
                  double denominator);
  static void cuda(const CrossEntropy& result, const Tensor& gradient, const Tensor& logits, const Tensor& target,
                   double denominator);
};

/// loss [1] = the sum of per_token [T], in f64 and in a fixed order, / denominator; both f32 or both f64.
struct MeanLoss {
  static void cpu(const Tensor& loss, const Tensor& per_token, double denominator);
  static void cuda(const Tensor& loss, const Tensor& per_token, double denominator);
};

/// gradient *= dloss [1], in place. dloss is 1 unless the loss was weighted on the way, and then nothing is touched.
struct ScaleGradient {
  static void cpu(const Tensor& gradient, const Tensor& dloss);
  static void cuda(const Tensor& gradient, const Tensor& dloss);
};

}  // namespace agon
