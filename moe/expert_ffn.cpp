#include "moe/expert_ffn.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "moe/dispatch.h"
#include "ops/activation.h"
#include "ops/cpu/lanes.h"
#include "ops/cpu/map.h"
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
    const auto dot = [](const T* a, const T* b, int64_t n) {
      return cpu::sum_lanes<A>(n, [=](int64_t i) { return A(a[i]) * A(b[i]); });
    };
    const auto multiply = [](T* a, int64_t n, A by) {
      for (int64_t i = 0; i < n; ++i) a[i] = T(A(a[i]) * by);
    };
    parallel_ranges(offset.back(), 16, [&](int64_t begin, int64_t end) {
      int64_t e = std::ranges::upper_bound(offset, begin) - offset.begin() - 1;
      for (int64_t n = begin; n < end; ++n) {
        while (n >= offset[size_t(e) + 1]) ++e;
        const auto i = size_t(pair_of_row[size_t(n)]);
        T *const da = dhidden.data<T>().data() + n * F, *const dyn = dy.data<T>().data() + n * D;
        dw[i] = dot(da, hidden.data<const T>().data() + n * F, F);
        if (down_bias) dw[i] += dot(dyn, down_bias.data<const T>().data() + e * D, D);
        multiply(da, F, w[i]);
        multiply(dyn, D, w[i]);
      }
    });
  });
}

Tensor expert_ffn(const Tensor& x, const Plan& plan, const Tensor& weight, const ExpertGroup& experts) {
  const int64_t N = plan.pair_of_row.size(), D = x.shape(-1), F = experts.hidden();
  const Device device = x.device();
  const Activation activation = experts.activation;
  const Tensor &up = experts.up, &down = experts.down, &up_bias = experts.up_bias, &down_bias = experts.down_bias;
  check(x.shape() == Shape{plan.token_offsets.size() - 1, up.shape(2)}, "expert_ffn: x ", x.shape(), ", expected ",
        Shape{plan.token_offsets.size() - 1, up.shape(2)});
  check(plan.offsets.size() == experts.experts() + 1, "expert_ffn: a plan for ", plan.offsets.size() - 1,
        " experts, there are ", experts.experts());
  check(x.dtype() == up.dtype() && weight.shape() == Shape{N} && weight.dtype() == accumulator_dtype(x.dtype()),
        "expert_ffn: x of ", x.dtype(), " and weight ", weight.shape(), " of ", weight.dtype(), ", expected ",
        up.dtype(), " and ", Shape{N}, " of ", accumulator_dtype(x.dtype()));

  Tensor before({N, up.shape(1)}, x.dtype(), device), y(x.shape(), x.dtype(), device);
  {
    const Tensor rows({N, D}, x.dtype(), device), hidden({N, F}, x.dtype(), device);
    run<Dispatch::Permute>(device, rows, x, plan);
    run<GroupedLinear::Forward>(device, before, rows, up, plan.offsets, up_bias);
    ExpertFfn::activate(hidden, before, activation);
    run<GroupedLinear::Forward>(device, rows, hidden, down, plan.offsets, down_bias);
    run<Dispatch::Combine>(device, y, rows, weight, plan);
  }
  return record("expert_ffn", {&x, &weight, &up, &down, &up_bias, &down_bias}, y,
                [x, plan, weight, before, up, down, up_bias, down_bias, activation](Gradients& g, const Tensor& dy) {
                  const Device at = x.device();
                  const Tensor rows({before.shape(0), x.shape(1)}, x.dtype(), at);  // of dy, then of x, then of dx
                  run<Dispatch::Permute>(at, rows, dy, plan);
                  const Tensor dhidden({before.shape(0), down.shape(2)}, x.dtype(), at);
                  run<GroupedLinear::Input>(at, dhidden, rows, down, plan.offsets);
                  {
                    const Tensor hidden(dhidden.shape(), x.dtype(), at), dweight(weight.shape(), weight.dtype(), at);
                    ExpertFfn::activate(hidden, before, activation);
                    run<ExpertFfn::Weigh>(at, dweight, dhidden, rows, hidden, weight, down_bias, plan);
                    g.add(weight, dweight);
                    give_gradient(g, down, [&](const Tensor& d, bool add) {
                      run<GroupedLinear::Weight>(at, d, add, rows, hidden, plan.offsets);
                    });
                    give_gradient(g, down_bias, [&](const Tensor& d, bool add) {
                      run<GroupedLinear::Bias>(at, d, add, rows, plan.offsets);
                    });
                  }
                  ExpertFfn::activate_backward(before, dhidden, activation);  // a node runs once: nobody reads it again
                  run<Dispatch::Permute>(at, rows, x, plan);
                  give_gradient(g, up, [&](const Tensor& d, bool add) {
                    run<GroupedLinear::Weight>(at, d, add, before, rows, plan.offsets);
                  });
                  give_gradient(g, up_bias, [&](const Tensor& d, bool add) {
                    run<GroupedLinear::Bias>(at, d, add, before, plan.offsets);
                  });
                  if (!g.wants(x)) return;
                  run<GroupedLinear::Input>(at, rows, before, up, plan.offsets);
                  const Tensor dx(x.shape(), x.dtype(), at);
                  run<Dispatch::Combine>(at, dx, rows, Tensor(), plan);
                  g.add(x, dx);
                });
}

}  // namespace agon
