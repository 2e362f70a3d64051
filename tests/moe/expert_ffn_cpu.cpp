#include "moe/expert_ffn.h"

#include <doctest/doctest.h>

#include "core/parallel.h"
#include "moe/dispatch.h"
#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kWidth = 6, kHidden = 5;

/// Outputs and gradients of ⟨direction, f(x, weight)⟩.
struct Result {
  Tensor y;
  std::vector<Tensor> gradients;  // x, weight, parameters of the experts
};

template <class F>
Result differentiate(ExpertGroup& experts, Parameter& x, Parameter& weight, F&& f) {
  std::vector<Parameter*> all{&x, &weight};
  for (Parameter* p : parameters(experts)) all.push_back(p);
  for (Parameter* p : all) p->has_grad = false;
  Tape tape(all);
  Result result{f(x, weight), {}};
  tape.backward(probe(result.y, 17));
  for (Parameter* p : all) result.gradients.push_back(clone(p->grad));
  return result;
}

Parameter parameter(const Tensor& values, Precision precision, Device device = {}) {
  Parameter p(values.shape(), precision, device);
  copy(p.master, values);
  p.refresh();
  return p;
}

enum class Op { weighed, answers };

/// The op, or the same in steps.
Result run(Op op, int64_t tokens, int64_t experts_total, int64_t spare, Activation activation, bool bias,
           Precision precision, bool in_steps) {
  ExpertGroup experts(experts_total, kWidth, kHidden, activation, bias, precision, 1, 1);
  fill_parameters(experts, 23);
  const RandomPairs pairs = random_pairs(tokens, experts_total, 29, spare);
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, experts_total);
  Parameter x = parameter(random({tokens, kWidth}, 1), precision);
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
    Tensor y(weighed ? in.shape() : Shape{pairs.expert.size(), kWidth}, in.dtype());
    ExpertFfn::forward_in_steps(y, operands);
    return record("in steps",
                  {&in, &operands.weight, &operands.up, &operands.down, &operands.up_bias, &operands.down_bias}, y,
                  [operands](Gradients& g, const Tensor& dy) { ExpertFfn::backward_in_steps(g, dy, operands); });
  });
}

}  // namespace

TEST_CASE("expert_ffn: the kernels fused for a CPU give the bits of the steps") {
  for (const auto& [op, precision] : {std::pair{Op::weighed, Precision::f64()},
                                      {Op::weighed, Precision::fp32()},
                                      {Op::weighed, Precision::bf16()},
                                      {Op::answers, Precision::f64()},
                                      {Op::answers, Precision::fp32()},
                                      {Op::answers, Precision::bf16()}})
    for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu})
      for (const bool bias : {false, true})
        for (const auto& [tokens, experts, spare] : {std::tuple{13, 4, 0}, {700, 3, 9}}) {
          CAPTURE(int(op));
          CAPTURE(int(precision.compute));
          CAPTURE(int(activation));
          CAPTURE(bias);
          CAPTURE(tokens);
          const Result fused = run(op, tokens, experts, spare, activation, bias, precision, false),
                       steps = run(op, tokens, experts, spare, activation, bias, precision, true);
          CHECK(identical(fused.y, steps.y));
          for (size_t i = 0; i < steps.gradients.size(); ++i) {
            CAPTURE(i);
            CHECK(identical(fused.gradients[i], steps.gradients[i]));
          }
        }
}
