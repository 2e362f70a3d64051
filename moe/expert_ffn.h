#pragma once
#include "moe/experts.h"
#include "moe/routing.h"

namespace agon {

class Gradients;

/// y[t] = sum over the pairs (t, e), in their order, of weight * expert e of x[t]: x [T, D], weight [N] f32 (f64) per
/// pair
/// -> [T, D]. The same, to the bit on a CPU, as combine(experts(permute(x, plan), plan.offsets), weight, plan) as one
/// op: of all rows it keeps only what goes into the activation, [N, 2F or F], and finds the weight's gradient as
/// <dA, A> on the activation's side, so that the experts' answers need not be kept.
Tensor expert_ffn(const Tensor& x, const Plan& plan, const Tensor& weight, const ExpertGroup& experts);

/// The answer of each pair's expert to its token, sorted as `plan` says: x [T, D] -> [N, D], rows past the last pair 0.
/// The same, to the bit on a CPU, as experts(permute(x, plan), plan.offsets), as one op that keeps of all rows only
/// what goes into the activation.
Tensor expert_answers(const Tensor& x, const Plan& plan, const ExpertGroup& experts);

struct ExpertFfn {
  /// The op's inputs, and `before` [N, 2F or F], what goes into the activation of each row. Without a weight y is the
  /// answers, [N, D].
  struct Operands {
    Tensor x;
    Plan plan;
    Tensor weight, up, down, up_bias, down_bias;
    Activation activation;
    Tensor before;
  };
  /// Makes y and `before`.
  struct Forward {
    static void cpu(const Tensor& y, const Operands& operands);
    static void cuda(const Tensor& y, const Operands& operands);
  };
  /// Gives every gradient that is wanted. `before` becomes its own gradient: a node runs once.
  struct Backward {
    static void cpu(Gradients& g, const Tensor& dy, const Operands& operands);
    static void cuda(Gradients& g, const Tensor& dy, const Operands& operands);
  };

  /// Both in steps, each a kernel over all rows, for any device: what a GPU runs, and a test of the fused kernels.
  static void forward_in_steps(const Tensor& y, const Operands& operands);
  static void backward_in_steps(Gradients& g, const Tensor& dy, const Operands& operands);

  /// hidden = activation(before).
  static void activate(const Tensor& hidden, const Tensor& before, Activation activation);
  /// before becomes its own gradient, given that of hidden.
  static void activate_backward(const Tensor& before, const Tensor& dhidden, Activation activation);
  /// For the pair i of each row: dweight[i] = <dhidden, hidden> (+ <dy, down_bias[e]>), then dhidden and dy are
  /// multiplied by weight[i]. dy and dhidden come in for weight 1. Rows past the last one in use stay as they are.
  struct Weigh {
    static void cpu(const Tensor& dweight, const Tensor& dhidden, const Tensor& dy, const Tensor& hidden,
                    const Tensor& weight, const Tensor& down_bias, const Plan& plan);
    static void cuda(const Tensor& dweight, const Tensor& dhidden, const Tensor& dy, const Tensor& hidden,
                     const Tensor& weight, const Tensor& down_bias, const Plan& plan);
  };
};

}  // namespace agon
