#pragma once
#include "core/tensor.h"

namespace agon {

struct CrossEntropy {
  Tensor loss;       // [1] f32: sum over tokens of -log softmax(x wᵀ)[target], divided by `denominator`; on the tape
  Tensor per_token;  // [T] f32, nats; 0 where the target is negative
};

/// The language model's head and its loss in one: x [T, D], w [V, D], target [T] i32 (negative: not counted). Logits
/// exist only for a block of tokens times a chunk of the vocabulary at a time; the logsumexp runs over the chunks in
/// order. The gradients of x and w are made in the forward pass, when something records, so backward only scales them.
/// `denominator` is the number of counted tokens over all ranks and micro-batches of the step.
/// Throws UserError when a target is not below V. On a GPU, where nothing can be thrown, such a target makes the loss
/// NaN.
CrossEntropy linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& target, double denominator);

struct LinearCrossEntropyForward {
  /// Logits that exist at a time, at most; 0: as many as the device likes. The CPU: 8 MiB in f32. A GPU: 128 MiB in
  /// f32, beside them half as much for their gradient in bf16, and chunks of the whole vocabulary up to 65,536: then no
  /// logit is made twice.
  struct Block {
    int64_t rows, classes;
  };
  /// result.per_token; dx like x, dw [V, D] f32 (f64 for f64); each may be none.
  static void cpu(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x, const Tensor& w,
                  const Tensor& target, double denominator, Block most = {});
  static void cuda(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x, const Tensor& w,
                   const Tensor& target, double denominator, Block most = {});
};

/// dw = [dw +] dloss [1] * from.
struct AddScaled {
  static void cpu(const Tensor& dw, bool add, const Tensor& from, const Tensor& dloss);
  static void cuda(const Tensor& dw, bool add, const Tensor& from, const Tensor& dloss);
};

}  // namespace agon
