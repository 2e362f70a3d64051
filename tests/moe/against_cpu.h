#pragma once
#include "moe/routing.h"
#include "ops/elementwise.h"
#include "tests/ops/support.h"

namespace agon::testing {

inline Plan on_device(const Plan& plan, Device device) {
  return {.token_of_pair = agon::on_device(plan.token_of_pair, device),
          .pair_of_row = agon::on_device(plan.pair_of_row, device),
          .row_of_pair = agon::on_device(plan.row_of_pair, device),
          .offsets = agon::on_device(plan.offsets, device),
          .token_offsets = agon::on_device(plan.token_offsets, device)};
}

/// For ops whose CPU version has tests of its own: the case whose reference is the op itself in f64 on the CPU. f takes
/// what it captured to the device of its inputs.
inline OpCase against_cpu(const std::vector<Tensor>& inputs,
                          const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  const auto gradients = [f](const Tensor& dy, const std::vector<Tensor>& at) {
    Tape tape({});
    for (const Tensor& x : at) tape.watch(x);
    const Tensor y = f(at), loss({1}, DType::f64);
    tape.backward(record("given", {&y}, loss, [y, dy](Gradients& g, const Tensor&) { g.add(y, dy); }));
    std::vector<Tensor> all;
    for (const Tensor& x : at) all.push_back(tape.gradient(x));
    return all;
  };
  return {.inputs = inputs, .op = f, .reference = f, .reference_backward = gradients};
}

/// In the dtype of weights and scores beside x: what is f64 or f32 already stays it.
inline Tensor wide(const Tensor& x) { return cast(x, accumulator_dtype(x.dtype())); }

}  // namespace agon::testing
