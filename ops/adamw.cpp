#include "ops/adamw.h"

#include <cmath>

#include "ops/cpu/map.h"

namespace agon {

namespace {

void update(const Parameter& parameter, const Moments& moments, const AdamWOptions& options, double gradient_scale) {
  visit_accumulator(parameter.master.dtype(), [&]<class A>() {
    const AdamWNumbers<A> c(options);
    const A scale = A(gradient_scale), decay = A(parameter.decays ? options.decay : 0.0);
    A* const w = parameter.master.data<A>().data();
    A* const first = moments.first.data<A>().data();
    A* const second = moments.second.data<A>().data();
    const A* const gradient = parameter.grad.data<const A>().data();
    const bool rounds = parameter.value.dtype() == DType::bf16;
    bf16* const rounded = rounds ? parameter.value.data<bf16>().data() : nullptr;
    const auto& kernels = cpu::update_kernels<A>();
    parallel_ranges(parameter.master.size(), cpu::kGrain, [=, &kernels](int64_t begin, int64_t end) {
      kernels.adamw(w + begin, first + begin, second + begin, gradient + begin, rounded ? rounded + begin : nullptr, c,
                    scale, decay, end - begin);
    });
  });
}

}  // namespace

void AdamW::Update::cpu(Table&, std::span<Parameter* const> parameters, std::span<const Moments> moments,
                        const AdamWOptions& options, const Found& found) {
  const double norm = std::sqrt(found.square_sum.item());
  if (!std::isfinite(norm) || (found.loss && !std::isfinite(found.loss.item()))) return;
  for (size_t i = 0; i < parameters.size(); ++i)
    update(*parameters[i], moments[i], options, clipping_scale(norm, options.clip));
}

void adamw(std::span<Parameter* const> parameters, std::span<const Moments> moments, const AdamWOptions& options,
           const AdamW::Found& found, AdamW::Table& table) {
  check(parameters.size() == moments.size(), "adamw: ", parameters.size(), " parameters, ", moments.size(),
        " pairs of moments");
  check(options.step >= 1, "adamw: steps count from 1, got ", options.step);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = *parameters[i];
    const Moments& m = moments[i];
    check(p.has_grad, "adamw: no tape has written the gradient of ", p.name);
    check(m.first.size() == p.master.size() && m.second.size() == p.master.size() &&
              m.first.dtype() == p.master.dtype() && m.second.dtype() == p.master.dtype(),
          "adamw: the moments of ", p.name, " do not match its master ", p.master.dtype(), ' ', p.master.shape());
  }
  for (Parameter* p : parameters) p->has_grad = false;
  run<AdamW::Update>(found.square_sum.device(), table, parameters, moments, options, found);
}

}  // namespace agon
