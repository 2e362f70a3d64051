#include "ops/linear.h"

#include <doctest/doctest.h>

#include "ops/reference.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

Tensor wide(const Tensor& t) { return t ? converted(t, DType::f64) : t; }

}  // namespace

TEST_CASE("linear: gradients agree with differences, for x of any rank, with and without bias") {
  CHECK(gradient_error({random({5, 7}, 1), random({3, 7}, 2), random({3}, 3)},
                       [](auto& in) { return probe(linear(in[0], in[1], in[2]), 4); }) < 1e-8);
  CHECK(gradient_error({random({2, 3, 4}, 1), random({6, 4}, 2)},
                       [](auto& in) { return probe(linear(in[0], in[1]), 4); }) < 1e-8);
  CHECK(gradient_error({random({4}, 1), random({2, 4}, 2)}, [](auto& in) { return probe(linear(in[0], in[1]), 4); }) <
        1e-8);
}

TEST_CASE("linear: forward and backward against the reference in every combination of dtypes") {
  struct Case {
    DType x, w;
    double tolerance;
  };
  for (const auto [x_dtype, w_dtype, tolerance] : {Case{DType::f64, DType::f64, 1e-13},
                                                   {DType::f32, DType::f32, 1e-5},
                                                   {DType::bf16, DType::bf16, 1e-2},
                                                   {DType::bf16, DType::f32, 1e-2}}) {
    CAPTURE(x_dtype);
    CAPTURE(w_dtype);
    const Tensor x = random({37, 29}, 1, 1, x_dtype);
    const DType master = w_dtype == DType::bf16 ? DType::f32 : w_dtype;
    Parameter w({19, 29}, {w_dtype, master}), bias({19}, {w_dtype, master});
    copy(w.value, random({19, 29}, 2));
    copy(bias.value, random({19}, 3));
    const Tensor dy = random({37, 19}, 4, 1, w_dtype);  // what probe hands back
    Parameter* all[] = {&w, &bias};
    Tape tape(all);
    tape.watch(x);
    const Tensor y = linear(x, w, bias);
    CHECK(y.dtype() == w_dtype);
    tape.backward(probe(y, 4));
    CHECK(tape.gradient(x).dtype() == x_dtype);
    CHECK(w.grad.dtype() == master);
    CHECK(relative_error(y, reference::linear(wide(x), wide(w.value), wide(bias.value))) < tolerance);
    const auto expected = reference::linear_backward(wide(dy), wide(x), wide(w.value));
    CHECK(relative_error(tape.gradient(x), expected.dx) < tolerance);
    CHECK(relative_error(w.grad, expected.dw) < 1e-5);
    CHECK(relative_error(bias.grad, expected.dbias) < 1e-5);
  }
}

TEST_CASE("linear: a weight used twice collects both gradients, no rows give a zero gradient") {
  CHECK(gradient_error({random({5, 4}, 1), random({4, 4}, 2), random({4}, 3)},
                       [](auto& in) { return probe(linear(linear(in[0], in[1], in[2]), in[1], in[2]), 4); }) < 1e-8);
  Parameter w({3, 4}, Precision::fp32());
  Parameter* all[] = {&w};
  fill(w.grad, 5);
  Tape tape(all);
  const Tensor y = linear(Tensor({0, 4}, DType::f32), w);
  CHECK(y.shape() == Shape{0, 3});
  tape.backward(probe(y, 1));
  CHECK(dot(w.grad, w.grad) == 0);
}

TEST_CASE("linear: the gradient of a weight that is no parameter has its dtype") {
  const Tensor x = random({6, 5}, 1, 1, DType::bf16), w = random({3, 5}, 2, 1, DType::bf16);
  Tape tape({});
  tape.watch(w);
  tape.backward(probe(linear(x, w), 3));
  CHECK(tape.gradient(w).dtype() == DType::bf16);
  CHECK(relative_error(tape.gradient(w),
                       reference::linear_backward(wide(random({6, 3}, 3, 1, DType::bf16)), wide(x), wide(w)).dw) <
        1e-2);
}

TEST_CASE("linear: what does not fit is an error that names the shapes") {
  CHECK_THROWS_WITH_AS(linear(random({2, 3}, 1), random({4, 5}, 2)),
                       doctest::Contains("x [2, 3] does not go with w [4, 5]"), Error);
  CHECK_THROWS_AS(linear(random({2, 3}, 1), random({4, 3}, 2), random({3}, 3)), Error);
  CHECK_THROWS_AS(linear(random({2, 3}, 1), random({4, 3}, 2, 1, DType::f32)), Error);
}
