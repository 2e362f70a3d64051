#include "ops/grad_norm.h"

#include <doctest/doctest.h>

#include <limits>

#include "core/parallel.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

std::vector<Parameter> with_gradients(Precision precision) {
  std::vector<Parameter> all;
  for (const Shape& shape : {Shape{3, 5}, Shape{0}, Shape{1}, Shape{50001}}) {
    Parameter& p = all.emplace_back(shape, precision);
    fill_normal(p.grad, {all.size(), 0}, 1);
    p.has_grad = true;
  }
  return all;
}

std::vector<Parameter*> pointers(std::vector<Parameter>& parameters) {
  std::vector<Parameter*> all;
  for (Parameter& p : parameters) all.push_back(&p);
  return all;
}

}  // namespace

TEST_CASE("grad_square_sum: in f64, the same for any number of threads") {
  for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()}) {
    auto parameters = with_gradients(precision);
    double expected = 0;
    for (const Parameter& p : parameters) expected += dot(p.grad, p.grad);
    set_threads(1);
    const double one = grad_square_sum(pointers(parameters));
    set_threads(3);
    CHECK(grad_square_sum(pointers(parameters)) == one);
    set_threads(0);
    CHECK(std::abs(one - expected) < 1e-12 * expected);
  }
  CHECK(grad_square_sum({}) == 0);
  auto parameters = with_gradients(Precision::fp32());
  fill(parameters[0].grad, 1e30);  // squares overflow f32
  CHECK(grad_square_sum(pointers(parameters)) == doctest::Approx(15e60));
  parameters[2].has_grad = false;
  CHECK_THROWS_AS(grad_square_sum(pointers(parameters)), Error);
}

TEST_CASE("first_non_finite: finds infinity and NaN wherever they are, and the first parameter that has one") {
  auto parameters = with_gradients(Precision::fp32());
  const auto all = pointers(parameters);
  CHECK(first_non_finite(all) == nullptr);
  fill(parameters[0].grad, std::numeric_limits<float>::max());
  CHECK(first_non_finite(all) == nullptr);
  for (const size_t at : {size_t(0), size_t(16383), size_t(16384), size_t(50000)})
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      const float keep = std::exchange(parameters[3].grad.data<float>()[at], bad);
      CHECK(first_non_finite(all) == all[3]);
      parameters[3].grad.data<float>()[at] = keep;
    }
  parameters[3].grad.data<float>()[7] = NAN;
  parameters[2].grad.data<float>()[0] = NAN;
  CHECK(first_non_finite(all) == all[2]);
}
