#include "tests/moe/expert_ffn.h"

#include <doctest/doctest.h>

using namespace agon;
using namespace agon::testing;

namespace {

/// D and F.
struct Widths {
  int64_t outer, inner;
};

enum class Op { weighed, answers };

/// The op, or the same in steps.
Result run(Op op, Widths widths, int64_t tokens, int64_t experts_total, int64_t spare, Activation activation, bool bias,
           Precision precision, bool in_steps) {
  ExpertGroup experts(experts_total, widths.outer, widths.inner, activation, bias, precision, 1, 1);
  fill_parameters(experts, 23);
  const RandomPairs pairs = random_pairs(tokens, experts_total, 29, spare);
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, experts_total);
  Parameter x = parameter(random({tokens, widths.outer}, 1), precision);
  Parameter weight = parameter(random({pairs.expert.size()}, 2), in_master(precision));
  return differentiate(experts, x, weight, [&](const Tensor& in, const Tensor& w) {
    const bool weighed = op == Op::weighed;
    if (!in_steps) return weighed ? expert_ffn(in, plan, w, experts) : expert_answers(in, plan, experts);
    const ExpertFfn::Operands operands{.x = in,
                                       .plan = plan,
                                       .weight = weighed ? w : Tensor(),
                                       .up = experts.up,
                                       .down = experts.down,
                                       .up_bias = experts.up_bias,
                                       .down_bias = experts.down_bias,
                                       .activation = activation,
                                       .before = Tensor({pairs.expert.size(), experts.up.value.shape(1)}, in.dtype())};
    Tensor y(weighed ? in.shape() : Shape{pairs.expert.size(), widths.outer}, in.dtype());
    ExpertFfn::forward_in_steps(y, operands);
    return record("in steps",
                  {&in, &operands.weight, &operands.up, &operands.down, &operands.up_bias, &operands.down_bias}, y,
                  [operands](Gradients& g, const Tensor& dy) { ExpertFfn::backward_in_steps(g, dy, operands); });
  });
}

/// Both to the bit.
void check_both(Op op, Widths widths, int64_t tokens, int64_t experts, int64_t spare, Activation activation, bool bias,
                Precision precision) {
  CAPTURE(int(op));
  CAPTURE(widths.inner);
  CAPTURE(int(precision.compute));
  CAPTURE(int(activation));
  CAPTURE(bias);
  CAPTURE(tokens);
  const Result fused = run(op, widths, tokens, experts, spare, activation, bias, precision, false),
               steps = run(op, widths, tokens, experts, spare, activation, bias, precision, true);
  CHECK(identical(fused.y, steps.y));
  REQUIRE(fused.gradients.size() == steps.gradients.size());
  for (size_t i = 0; i < steps.gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(identical(fused.gradients[i], steps.gradients[i]));
  }
}

}  // namespace

TEST_CASE("expert_ffn: the kernels fused for a CPU give the bits of the steps") {
  for (const Op op : {Op::weighed, Op::answers})
    for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()})
      for (const bool bias : {false, true}) {
        for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu})
          for (const auto& [tokens, experts, spare] : {std::tuple{13, 4, 0}, {700, 3, 9}})
            check_both(op, {6, 5}, tokens, experts, spare, activation, bias, precision);
        // Wider than what stays packed, and more rows of an expert than a block or a weight's gradient takes at once.
        check_both(op, {33, 1601}, 30, 2, 0, Activation::swiglu, bias, precision);
        check_both(op, {40, 48}, 1500, 2, 0, Activation::swiglu, bias, precision);
      }
}
