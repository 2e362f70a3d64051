#pragma once
#include "ops/cpu/row_activations.h"
#include "ops/cpu/row_answers.h"
#include "ops/cpu/row_choice.h"
#include "ops/cpu/row_norms.h"
#include "ops/cpu/row_softmax.h"
#include "ops/cpu/row_sums.h"

// The loops behind rows.h, for files compiled for one instruction set each.
namespace agon::cpu {
namespace {

template <class T>
constexpr RowKernels<T> kernels() {
  return {
      .swiglu = swiglu<T>,
      .swiglu_backward = swiglu_backward<T>,
      .swiglu_weighed = swiglu_weighed<T>,
      .gelu = gelu<T>,
      .gelu_backward = gelu_backward<T>,
      .sigmoid = sigmoid<T>,
      .softplus_sum = softplus_sum<T>,
      .silu_sum = silu_sum<T>,
      .relu_sum = relu_sum<T>,
      .softplus_slopes = softplus_slopes<T>,
      .silu_slopes = silu_slopes<T>,
      .max = max_of<T>,
      .exp_sum = exp_sum<T>,
      .exp_scaled = exp_scaled<T>,
      .softmax = softmax<T>,
      .softmax_backward = softmax_backward<T>,
      .rms_norm = rms_norm<T>,
      .rms_norm_backward = rms_norm_backward<T>,
      .layer_norm = layer_norm<T>,
      .layer_norm_backward = layer_norm_backward<T>,
      .add_gain = add_gain<T>,
      .rotate = rotate<T>,
      .dot = dot<T>,
      .scale = scale<T>,
      .dot_scale = dot_scale<T>,
      .weighted_sum = weighted_sum<T>,
  };
}

template <class A>
constexpr UpdateKernels<A> update_kernels_of() {
  return {.square_sum = square_sum<A>, .adamw = adamw<A>};
}

template <class A>
constexpr ChoiceKernels<A> choice_kernels_of() {
  return {.top_k = top_k<A>};
}

}  // namespace
}  // namespace agon::cpu
