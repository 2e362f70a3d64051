#pragma once
#include "core/tensor.h"

namespace agon {

struct CrossEntropy {
  Tensor loss;       // [1] f32: sum over tokens of -log softmax(x wᵀ)[target], divided by `denominator`; on the tape
  Tensor per_token;  // [T] f32, nats; 0 where the target is negative
};

/// The language model's head and its loss in one: x [T, D], w [V, D], target [T] i32 (negative: not counted). Logits exist
/// only for a block of tokens times a chunk of the vocabulary at a time; the logsumexp runs over the chunks in order. The
/// gradients of x and w are made in the forward pass, when something records, so backward only scales them.
/// `denominator` is the number of counted tokens over all ranks and micro-batches of the step.
/// Throws UserError when a target is not below V.
CrossEntropy linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& target, double denominator);

}  // namespace agon
