#include "ops/adamw.h"

#include <cmath>

#include "ops/cpu/map.h"

namespace agon {

namespace {

/// The options as the numbers the loop needs, in its arithmetic; bias corrections are made in f64.
template <class A>
struct Constants {
  A scale, beta1, rest1, beta2, rest2, correction1, correction2, rate, epsilon, decay;

  Constants(const AdamWOptions& o, double decay_of_this)
      : scale(A(o.gradient_scale)),
        beta1(A(o.beta1)),
        rest1(A(1 - o.beta1)),
        beta2(A(o.beta2)),
        rest2(A(1 - o.beta2)),
        correction1(A(1 / (1 - std::pow(o.beta1, double(o.step))))),
        correction2(A(1 / (1 - std::pow(o.beta2, double(o.step))))),
        rate(A(o.rate)),
        epsilon(A(o.epsilon)),
        decay(A(decay_of_this)) {}
};

}  // namespace

void AdamW::Update::cpu(const Parameter& parameter, const Moments& moments, const AdamWOptions& options, double decay) {
  visit_accumulator(parameter.master.dtype(), [&]<class A>() {
    const Constants<A> c(options, decay);
    A* const w = parameter.master.data<A>().data();
    A* const first = moments.first.data<A>().data();
    A* const second = moments.second.data<A>().data();
    const A* const gradient = parameter.grad.data<const A>().data();
    const bool rounds = parameter.value.dtype() == DType::bf16;
    bf16* const rounded = rounds ? parameter.value.data<bf16>().data() : nullptr;
    parallel_ranges(parameter.master.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const A g = gradient[i] * c.scale;
        const A m = first[i] = c.beta1 * first[i] + c.rest1 * g;
        const A v = second[i] = c.beta2 * second[i] + c.rest2 * g * g;
        w[i] -= c.rate * (m * c.correction1 / (std::sqrt(v * c.correction2) + c.epsilon) + c.decay * w[i]);
      }
      if (rounds)
        for (int64_t i = begin; i < end; ++i) rounded[i] = bf16(w[i]);
    });
  });
}

void adamw(std::span<Parameter* const> parameters, std::span<Moments> moments, const AdamWOptions& options) {
  check(parameters.size() == moments.size(), "adamw: ", parameters.size(), " parameters, ", moments.size(),
        " pairs of moments");
  check(options.step >= 1, "adamw: steps count from 1, got ", options.step);
  for (size_t i = 0; i < parameters.size(); ++i) {
    Parameter& p = *parameters[i];
    const Moments& m = moments[i];
    check(p.has_grad, "adamw: no tape has written the gradient of ", p.name);
    check(m.first.size() == p.master.size() && m.second.size() == p.master.size() &&
              m.first.dtype() == p.master.dtype() && m.second.dtype() == p.master.dtype(),
          "adamw: the moments of ", p.name, " do not match its master ", p.master.dtype(), ' ', p.master.shape());
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    Parameter& p = *parameters[i];
    run<AdamW::Update>(p.master.device(), p, moments[i], options, p.decays ? options.decay : 0.0);
    p.has_grad = false;
  }
}

}  // namespace agon
