#include "ops/linear.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

Tensor wide(const Tensor& t) { return t ? converted(on_host(t), DType::f64) : t; }

}  // namespace

DEVICE_CASE("linear: against the reference, for x of any rank, with and without bias") {
  const auto with_bias = [](const std::vector<Tensor>& in) { return linear(in[0], in[1], in[2]); };
  const auto expected = [](const std::vector<Tensor>& in) { return reference::linear(in[0], in[1], in[2]); };
  const auto gradients = [](const Tensor& dy, const std::vector<Tensor>& in) {
    const auto g = reference::linear_backward(dy, in[0], in[1]);
    return std::vector<Tensor>{g.dx, g.dw, g.dbias};
  };
  for (const auto& [x, w] : std::vector<std::pair<Shape, Shape>>{
           {{37, 29}, {19, 29}}, {{1, 8}, {16, 8}}, {{2, 3, 4}, {6, 4}}, {{4}, {2, 4}}, {{70, 65}, {33, 65}}})
    op_case({{random(x, 1), random(w, 2), random({w[0]}, 3)}, with_bias, expected, gradients, 1});
  op_case({{random({37, 29}, 1), random({19, 29}, 2)},
           [](const std::vector<Tensor>& in) { return linear(in[0], in[1]); },
           [](const std::vector<Tensor>& in) { return reference::linear(in[0], in[1]); },
           [](const Tensor& dy, const std::vector<Tensor>& in) {
             const auto g = reference::linear_backward(dy, in[0], in[1]);
             return std::vector<Tensor>{g.dx, g.dw};
           }});
}

DEVICE_CASE("linear: x of bf16 with w of f32 has products exact to f32") {
  const Tensor x = random({67, 300}, 1, 1, DType::bf16);
  Parameter w({19, 300}, Precision::fp32(), device_of_case()), bias({19}, Precision::fp32(), device_of_case());
  copy(w.value, there(random({19, 300}, 2, 1, DType::f32)));
  copy(bias.value, there(random({19}, 3, 1, DType::f32)));
  fill(w.grad, 9);
  Parameter* all[] = {&w, &bias};
  const Tensor dy = random({67, 19}, 4, 1, DType::f32), there_x = there(x);
  const auto expected = reference::linear_backward(wide(dy), wide(x), wide(w.value));
  for (const double times : {1.0, 2.0}) {
    Tape tape(all);
    tape.watch(there_x);
    const Tensor y = linear(there_x, w, bias);
    CHECK(y.dtype() == DType::f32);
    tape.backward(probe(y, 4));
    CHECK(relative_error(y, reference::linear(wide(x), wide(w.value), wide(bias.value))) < 1e-6);
    CHECK(tape.gradient(there_x).dtype() == DType::bf16);
    // Rounded once: what rounding what the reference says gives, but for ties.
    CHECK(relative_error(tape.gradient(there_x), converted(expected.dx, DType::bf16)) < 1e-4);
    Tensor dw = clone(expected.dw);
    for (double& v : dw.data<double>()) v *= times;
    CHECK(relative_error(w.grad, dw) < 1e-6);
  }
}

TEST_CASE("linear: a weight used twice collects both gradients") {
  CHECK(gradient_error({random({5, 4}, 1), random({4, 4}, 2), random({4}, 3)},
                       [](auto& in) { return probe(linear(linear(in[0], in[1], in[2]), in[1], in[2]), 4); }) < 1e-8);
}

DEVICE_CASE("linear: no rows give a zero gradient") {
  for (const DType x : {DType::f32, DType::bf16}) {
    Parameter w({3, 4}, Precision::fp32(), device_of_case());
    Parameter* all[] = {&w};
    fill(w.grad, 5);
    Tape tape(all);
    const Tensor y = linear(Tensor({0, 4}, x, device_of_case()), w);
    CHECK(y.shape() == Shape{0, 3});
    tape.backward(probe(y, 1));
    CHECK(dot(w.grad, w.grad) == 0);
  }
}

DEVICE_CASE("linear: the gradient of a weight that is no parameter has its dtype") {
  const Tensor x = there(random({6, 5}, 1, 1, DType::bf16)), w = there(random({3, 5}, 2, 1, DType::bf16));
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
