#include "ops/grad_norm.h"

#include <doctest/doctest.h>

#include <limits>

#include "autograd/module.h"
#include "core/parallel.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

std::vector<Parameter> with_gradients(Precision precision) {
  std::vector<Parameter> all;
  for (const Shape& shape : {Shape{3, 5}, Shape{0}, Shape{1}, Shape{50001}}) {
    Parameter& p = all.emplace_back(shape, precision);
    move_part(p, device_of_case());
    copy(p.grad, random(shape, all.size(), 1, p.grad.dtype()));
    p.has_grad = true;
  }
  return all;
}

std::vector<Parameter*> pointers(std::vector<Parameter>& parameters) {
  std::vector<Parameter*> all;
  for (Parameter& p : parameters) all.push_back(&p);
  return all;
}

std::vector<Precision> precisions() {
  std::vector<Precision> all{Precision::fp32(), Precision::bf16()};
  if (device_of_case().kind == Device::cpu) all.push_back(Precision::f64());
  return all;
}

}  // namespace

DEVICE_CASE("grad_square_sum: in f64, the same for any number or order of threads") {
  for (const Precision precision : precisions()) {
    auto parameters = with_gradients(precision);
    double expected = 0;
    for (const Parameter& p : parameters) expected += dot(p.grad, p.grad);
    set_threads(1);
    const Tensor one = grad_square_sum(pointers(parameters));
    CHECK(one.dtype() == DType::f64);
    CHECK(one.device() == device_of_case());
    for (const int n : {2, 3}) {
      set_threads(n);
      const ThreadOrder order(uint64_t(n - 1));
      CHECK(identical(grad_square_sum(pointers(parameters)), one));
    }
    set_threads(0);
    CHECK(std::abs(one.item() - expected) < 1e-12 * expected);
  }
  CHECK(grad_square_sum({}).item() == 0);
  auto parameters = with_gradients(Precision::fp32());
  fill(parameters[0].grad, 1e30);  // squares overflow f32
  CHECK(grad_square_sum(pointers(parameters)).item() == doctest::Approx(15e60));
  parameters[2].has_grad = false;
  CHECK_THROWS_AS(grad_square_sum(pointers(parameters)), Error);
}

DEVICE_CASE("first_non_finite: finds infinity and NaN wherever they are, and the first parameter that has one") {
  auto parameters = with_gradients(Precision::fp32());
  const auto all = pointers(parameters);
  const auto put = [&](size_t parameter, size_t at, float value) {
    const Tensor changed = on_host(parameters[parameter].grad);
    const float before = std::exchange(changed.data<float>()[at], value);
    copy(parameters[parameter].grad, changed);
    return before;
  };
  CHECK(first_non_finite(all) == nullptr);
  fill(parameters[0].grad, std::numeric_limits<float>::max());
  CHECK(first_non_finite(all) == nullptr);
  for (const size_t at : {size_t(0), size_t(16383), size_t(16384), size_t(50000)})
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      const float before = put(3, at, bad);
      CHECK(first_non_finite(all) == all[3]);
      put(3, at, before);
    }
  put(3, 7, NAN);
  put(2, 0, NAN);
  CHECK(first_non_finite(all) == all[2]);
}
