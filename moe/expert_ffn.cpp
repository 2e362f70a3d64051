#include "moe/expert_ffn.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "moe/dispatch.h"
#include "ops/activation.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"
#include "ops/grouped_linear.h"
#include "ops/parameter_gradient.h"
#include "ops/swiglu.h"

namespace agon {

void ExpertFfn::activate(const Tensor& hidden, const Tensor& before, Activation activation) {
  const Device device = hidden.device();
  switch (activation) {
    case Activation::swiglu:
      return run<Swiglu::Forward>(device, hidden, before);
    case Activation::gelu:
      return run<Gelu::Forward>(device, hidden, before);
    case Activation::relu:
      return run<Relu::Forward>(device, hidden, before);
  }
}

void ExpertFfn::activate_backward(const Tensor& before, const Tensor& dhidden, Activation activation) {
  const Device device = before.device();
  switch (activation) {  // each reads an element for the last time before it writes it
    case Activation::swiglu:
      return run<Swiglu::Backward>(device, before, dhidden, before);
    case Activation::gelu:
      return run<Gelu::Backward>(device, before, dhidden, before);
    case Activation::relu:
      return run<Relu::Backward>(device, before, dhidden, before);  // relu(x) > 0 where x > 0
  }
}

void ExpertFfn::Weigh::cpu(const Tensor& dweight, const Tensor& dhidden, const Tensor& dy, const Tensor& hidden,
                           const Tensor& weight, const Tensor& down_bias, const Plan& plan) {
  const auto pair_of_row = plan.pair_of_row.data<const int32_t>(), offset = plan.offsets.data<const int32_t>();
  const int64_t D = dy.shape(1), F = hidden.shape(1);
  dweight.zero();
  visit_float(dy.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const A* const w = weight.data<const A>().data();
    A* const dw = dweight.data<A>().data();
    const cpu::RowKernels<T>& rows = cpu::row_kernels<T>();
    parallel_ranges(offset.back(), 16, [&](int64_t begin, int64_t end) {
      int64_t e = std::ranges::upper_bound(offset, begin) - offset.begin() - 1;
      for (int64_t n = begin; n < end; ++n) {
        while (n >= offset[size_t(e) + 1]) ++e;
        const auto i = size_t(pair_of_row[size_t(n)]);
        T *const da = dhidden.data<T>().data() + n * F, *const dyn = dy.data<T>().data() + n * D;
        dw[i] = rows.dot_scale(da, da, hidden.data<const T>().data() + n * F, w[i], F);
        if (down_bias) dw[i] += rows.dot(dyn, down_bias.data<const T>().data() + e * D, D);
        rows.scale(dyn, dyn, w[i], D);
      }
    });
  });
}

void ExpertFfn::forward_in_steps(const Tensor& y, const Operands& o) {
  const Device at = o.x.device();
  const Tensor rows({o.before.shape(0), o.x.shape(1)}, o.x.dtype(), at),
      hidden({o.before.shape(0), o.down.shape(2)}, o.x.dtype(), at);
  run<Dispatch::Permute>(at, rows, o.x, o.plan);
  run<GroupedLinear::Forward>(at, o.before, rows, o.up, o.plan.offsets, o.up_bias);
  activate(hidden, o.before, o.activation);
  run<GroupedLinear::Forward>(at, o.weight ? rows : y, hidden, o.down, o.plan.offsets, o.down_bias);
  if (o.weight) run<Dispatch::Combine>(at, y, rows, o.weight, o.plan);
}

void ExpertFfn::backward_in_steps(Gradients& g, const Tensor& dy, const Operands& o) {
  const Device at = o.x.device();
  const Tensor& offsets = o.plan.offsets;
  const Tensor rows({o.before.shape(0), o.x.shape(1)}, o.x.dtype(), at);  // of dy, then of x, then of dx
  const Tensor& slopes = o.weight ? rows : dy;                            // of the answers
  if (o.weight) run<Dispatch::Permute>(at, rows, dy, o.plan);
  const Tensor dhidden({o.before.shape(0), o.down.shape(2)}, o.x.dtype(), at);
  run<GroupedLinear::Input>(at, dhidden, slopes, o.down, offsets);
  {
    const Tensor hidden(dhidden.shape(), o.x.dtype(), at);
    activate(hidden, o.before, o.activation);
    if (o.weight) {
      const Tensor dweight(o.weight.shape(), o.weight.dtype(), at);
      run<Weigh>(at, dweight, dhidden, rows, hidden, o.weight, o.down_bias, o.plan);
      g.add(o.weight, dweight);
    }
    give_gradient(g, o.down,
                  [&](const Tensor& d, bool add) { run<GroupedLinear::Weight>(at, d, add, slopes, hidden, offsets); });
    give_gradient(g, o.down_bias,
                  [&](const Tensor& d, bool add) { run<GroupedLinear::Bias>(at, d, add, slopes, offsets); });
  }
  activate_backward(o.before, dhidden, o.activation);
  run<Dispatch::Permute>(at, rows, o.x, o.plan);
  give_gradient(g, o.up,
                [&](const Tensor& d, bool add) { run<GroupedLinear::Weight>(at, d, add, o.before, rows, offsets); });
  give_gradient(g, o.up_bias,
                [&](const Tensor& d, bool add) { run<GroupedLinear::Bias>(at, d, add, o.before, offsets); });
  if (!g.wants(o.x)) return;
  run<GroupedLinear::Input>(at, rows, o.before, o.up, offsets);
  const Tensor dx(o.x.shape(), o.x.dtype(), at);
  run<Dispatch::Combine>(at, dx, rows, Tensor(), o.plan);
  g.add(o.x, dx);
}

namespace {

/// The op on y's shape, weighed or not.
Tensor run_experts(const char* name, const Shape& shape, const Tensor& x, const Plan& plan, const Tensor& weight,
                   const ExpertGroup& experts) {
  const Tensor& up = experts.up;
  check(x.shape() == Shape{plan.token_offsets.size() - 1, up.shape(2)}, name, ": x ", x.shape(), ", expected ",
        Shape{plan.token_offsets.size() - 1, up.shape(2)});
  check(plan.offsets.size() == experts.experts() + 1, name, ": a plan for ", plan.offsets.size() - 1,
        " experts, there are ", experts.experts());
  check(x.dtype() == up.dtype(), name, ": x of ", x.dtype(), ", expected ", up.dtype());
  const ExpertFfn::Operands operands{.x = x,
                                     .plan = plan,
                                     .weight = weight,
                                     .up = up,
                                     .down = experts.down,
                                     .up_bias = experts.up_bias,
                                     .down_bias = experts.down_bias,
                                     .activation = experts.activation,
                                     .before = Tensor({plan.pair_of_row.size(), up.shape(1)}, x.dtype(), x.device())};
  Tensor y(shape, x.dtype(), x.device());
  run<ExpertFfn::Forward>(x.device(), y, operands);
  return record(
      name, {&x, &weight, &up, &operands.down, &operands.up_bias, &operands.down_bias}, y,
      [operands](Gradients& g, const Tensor& dy) { run<ExpertFfn::Backward>(operands.x.device(), g, dy, operands); });
}

}  // namespace

Tensor expert_ffn(const Tensor& x, const Plan& plan, const Tensor& weight, const ExpertGroup& experts) {
  const Shape pairs = plan.pair_of_row.shape();
  check(weight.shape() == pairs && weight.dtype() == accumulator_dtype(x.dtype()), "expert_ffn: weight ",
        weight.shape(), " of ", weight.dtype(), ", expected ", pairs, " of ", accumulator_dtype(x.dtype()));
  return run_experts("expert_ffn", x.shape(), x, plan, weight, experts);
}

Tensor expert_answers(const Tensor& x, const Plan& plan, const ExpertGroup& experts) {
  return run_experts("expert_answers", {plan.pair_of_row.size(), x.shape(-1)}, x, plan, {}, experts);
}

}  // namespace agon
