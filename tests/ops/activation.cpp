#include "ops/activation.h"

#include <limits>

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

void activation_case(Tensor (*op)(const Tensor&), Tensor (*reference)(const Tensor&),
                     Tensor (*backward)(const Tensor&, const Tensor&), bool differences = true) {
  for (const Shape& shape : {Shape{1}, Shape{5, 3}, Shape{3, 7, 11}, Shape{0, 4}, Shape{129, 257}})
    op_case({.inputs = {random(shape, 1, 2)},
             .op = [=](auto& in) { return op(in[0]); },
             .reference = [=](auto& in) { return reference(in[0]); },
             .reference_backward = [=](const Tensor& dy, auto& in) { return std::vector{backward(dy, in[0])}; },
             .differences = differences});
}

}  // namespace

DEVICE_CASE("gelu: against the reference") { activation_case(gelu, reference::gelu, reference::gelu_backward); }
DEVICE_CASE("relu: against the reference") { activation_case(relu, reference::relu, reference::relu_backward, false); }
DEVICE_CASE("sigmoid: against the reference") {
  activation_case(sigmoid, reference::sigmoid, reference::sigmoid_backward);
}

DEVICE_CASE("activations: the far ends are finite, NaN is not swallowed, relu's derivative at 0 is 0") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto of = [](Tensor (*op)(const Tensor&), float x) { return op(there(tensor_of<float>({x}))).item(); };
  CHECK(of(sigmoid, -1000) == 0);
  CHECK(of(sigmoid, -infinity) == 0);
  CHECK(of(sigmoid, 1000) == 1);
  CHECK(of(gelu, -1000) == 0);
  CHECK(of(gelu, 1000) == 1000);
  CHECK(of(gelu, -5) ==
        doctest::Approx(-5 * std::erfc(5 / std::sqrt(2.0)) / 2).epsilon(1e-5));  // 1 + erf has no digits left
  for (auto op : {gelu, relu, sigmoid}) CHECK(std::isnan(of(op, nan)));
  const Tensor zero = there(tensor_of<float>({0}));
  Tape tape({});
  tape.watch(zero);
  tape.backward(relu(zero));
  CHECK(tape.gradient(zero).item() == 0);
}
