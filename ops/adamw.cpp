#include "ops/adamw.h"

#include <Eigen/Core>
#include <cmath>
#include <type_traits>

#include "ops/cpu/map.h"

namespace agon {

namespace {

/// A piece of a tensor in Eigen's vector arithmetic: the compiler alone keeps std::sqrt scalar, for the sake of errno.
template <class T>
using Piece =
    Eigen::Map<std::conditional_t<std::is_const_v<T>, const Eigen::Array<std::remove_const_t<T>, Eigen::Dynamic, 1>,
                                  Eigen::Array<T, Eigen::Dynamic, 1>>>;

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
    parallel_ranges(parameter.master.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
      const int64_t n = end - begin;
      Piece<A> W(w + begin, n), M(first + begin, n), V(second + begin, n);
      const auto G = Piece<const A>(gradient + begin, n) * scale;
      M = c.beta1 * M + c.rest1 * G;
      V = c.beta2 * V + c.rest2 * G * G;
      W -= c.rate * (M * c.correction1 / ((V * c.correction2).sqrt() + c.epsilon) + decay * W);
      if (rounds)
        for (int64_t i = begin; i < end; ++i) rounded[i] = bf16(w[i]);
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
