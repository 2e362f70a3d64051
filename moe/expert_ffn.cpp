#include "moe/expert_ffn.h"

#include "autograd/tape.h"

namespace agon {

Tensor expert_ffn(const Tensor& x, const Plan& plan, const Tensor& weight, const ExpertGroup& experts) {
  const int64_t N = plan.pair_of_row.size();
  const Tensor& up = experts.up;
  check(x.shape() == Shape{plan.token_offsets.size() - 1, up.shape(2)}, "expert_ffn: x ", x.shape(), ", expected ",
        Shape{plan.token_offsets.size() - 1, up.shape(2)});
  check(plan.offsets.size() == experts.experts() + 1, "expert_ffn: a plan for ", plan.offsets.size() - 1,
        " experts, there are ", experts.experts());
  check(x.dtype() == up.dtype() && weight.shape() == Shape{N} && weight.dtype() == accumulator_dtype(x.dtype()),
        "expert_ffn: x of ", x.dtype(), " and weight ", weight.shape(), " of ", weight.dtype(), ", expected ",
        up.dtype(), " and ", Shape{N}, " of ", accumulator_dtype(x.dtype()));

  const ExpertFfn::Operands operands{.x = x,
                                     .plan = plan,
                                     .weight = weight,
                                     .up = up,
                                     .down = experts.down,
                                     .up_bias = experts.up_bias,
                                     .down_bias = experts.down_bias,
                                     .activation = experts.activation,
                                     .before = Tensor({N, up.shape(1)}, x.dtype(), x.device())};
  Tensor y(x.shape(), x.dtype(), x.device());
  run<ExpertFfn::Forward>(x.device(), y, operands);
  return record(
      "expert_ffn", {&x, &weight, &up, &operands.down, &operands.up_bias, &operands.down_bias}, y,
      [operands](Gradients& g, const Tensor& dy) { run<ExpertFfn::Backward>(operands.x.device(), g, dy, operands); });
}

}  // namespace agon
