#pragma once
#include <string>

#include "autograd/module.h"
#include "core/options.h"

namespace agon {

enum class Activation { swiglu, gelu, relu };
/// UserError naming the known ones when there is none of that name.
Activation activation_named(const std::string& name);
/// Width of what goes into the activation for F that come out: 2F for swiglu, [gate | up], else F.
constexpr int64_t width_before(Activation activation, int64_t hidden) {
  return activation == Activation::swiglu ? 2 * hidden : hidden;
}
/// The activation as an op: x [N, 2F or F] -> [N, F].
Tensor activate(Activation activation, const Tensor& x);

/// The experts of one rank: a feed-forward network each, applied to rows sorted by expert.
struct ExpertGroup {
  Activation activation = Activation::swiglu;
  Parameter up;         // swiglu: "gate_up" [e, 2F, D], gate rows first; else "up" [e, F, D]
  Parameter down;       // [e, D, F]
  Parameter up_bias;    // [e, 2F] or [e, F]; empty without bias
  Parameter down_bias;  // [e, D]

  ExpertGroup() = default;
  /// Weights are normal: `deviation` for up, `down_deviation` for down; biases start at 0.
  ExpertGroup(int64_t experts, int64_t width, int64_t hidden, Activation activation, bool bias, Precision precision,
              double deviation, double down_deviation);

  int64_t experts() const { return up.value.shape(0); }
  int64_t hidden() const { return down.value.shape(2); }
  /// rows [N, D] sorted by expert, offsets [e+1] i32 -> [N, D]: the plain composition of grouped_linear and activation.
  Tensor operator()(const Tensor& rows, const Tensor& offsets) const;

  void visit(auto&& v) {
    const bool gated = activation == Activation::swiglu;
    v(gated ? "gate_up" : "up", up);
    v("down", down);
    v("up_bias", up_bias);
    v("down_bias", down_bias);
  }
};

/// One feed-forward network applied to every row: a dense block's, or the shared experts of a MoE layer. The weights of
/// ExpertGroup without the leading extent.
struct FeedForward {
  Activation activation = Activation::swiglu;
  Parameter up, down, up_bias, down_bias;  // [2F or F, D], [D, F], [2F or F], [D]

  FeedForward() = default;
  FeedForward(int64_t width, int64_t hidden, Activation activation, bool bias, Precision precision, double deviation,
              double down_deviation);
  /// x [T, D] -> [T, D].
  Tensor operator()(const Tensor& x) const;

  void visit(auto&& v) {
    const bool gated = activation == Activation::swiglu;
    v(gated ? "gate_up" : "up", up);
    v("down", down);
    v("up_bias", up_bias);
    v("down_bias", down_bias);
  }
};

}  // namespace agon
