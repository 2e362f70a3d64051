#pragma once
#include <doctest/doctest.h>

#include "ops/elementwise.h"
#include "tests/moe/support.h"
#include "tests/support/cuda.h"

namespace agon::testing {

struct LossAndGradients {
  Tensor loss;
  std::vector<Tensor> gradients;
};

using LossOf = std::function<Tensor(const std::vector<Tensor>&)>;

/// ∂loss/∂loss is not 1, so that a gradient which forgets it is wrong.
inline LossAndGradients differentiate(const std::vector<Tensor>& inputs, const LossOf& loss_of) {
  Tape tape({});
  for (const Tensor& x : inputs) tape.watch(x);
  LossAndGradients result{loss_of(inputs), {}};
  tape.backward(scale(result.loss, -0.75));
  for (const Tensor& x : inputs) result.gradients.push_back(tape.gradient(x));
  return result;
}

/// For a GPU_CASE: a loss there, of f64 inputs rounded to `dtype`, against the same in f64 on the CPU; its gradients;
/// the same bits whatever order threads run in. What loss_of uses besides goes through there().
inline void check_loss_on_gpu(const std::vector<Tensor>& inputs, const LossOf& loss_of, DType dtype = DType::f32,
                              double tolerance = 1e-5) {
  std::vector<Tensor> wide, here;
  for (const Tensor& x : inputs) {
    const Tensor rounded = converted(x, dtype);
    wide.push_back(converted(rounded, DType::f64));
    here.push_back(there(rounded));
  }
  const Device device = std::exchange(device_of_case(), Device{});
  const LossAndGradients expected = differentiate(wide, loss_of);
  device_of_case() = device;

  const LossAndGradients found = differentiate(here, loss_of);
  CHECK(found.loss.device() == device);
  CHECK(found.loss.dtype() == DType::f32);
  CHECK(relative_error(found.loss, expected.loss) < tolerance);
  for (size_t i = 0; i < here.size(); ++i) {
    CAPTURE(i);
    REQUIRE(bool(found.gradients[i]) == bool(expected.gradients[i]));
    if (!expected.gradients[i]) continue;
    CHECK(found.gradients[i].dtype() == dtype);
    CHECK(relative_error(found.gradients[i], expected.gradients[i]) < tolerance);
  }
  for (const uint64_t order : {1, 2}) {
    const ThreadOrder changed(order);
    const LossAndGradients again = differentiate(here, loss_of);
    CHECK(identical(again.loss, found.loss));
    for (size_t i = 0; i < here.size(); ++i)
      if (found.gradients[i]) CHECK(identical(again.gradients[i], found.gradients[i]));
  }
}

/// What f does without a number crossing between host and GPU.
template <class F>
auto without_crossing(F&& f) {
  const Crossings before = crossings();
  auto result = f();
  CHECK(crossings().to_device == before.to_device);
  CHECK(crossings().to_host == before.to_host);
  return result;
}

}  // namespace agon::testing
