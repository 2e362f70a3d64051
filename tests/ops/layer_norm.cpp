#include "ops/layer_norm.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("layer_norm: against the reference, with and without bias, gains in the dtype of x or f32") {
  for (const Shape& shape : {Shape{5, 3}, Shape{2, 3, 40}, Shape{0, 4}, Shape{300, 65}, Shape{3, 1300}})
    for (const double epsilon : {1e-5, 0.3}) {
      const Tensor x = random(shape, 1), gain = random({shape[-1]}, 2), bias = random({shape[-1]}, 3);
      const auto backward = [=](const Tensor& dy, auto& in) {
        auto gradients = reference::layer_norm_backward(dy, in[0], in[1], epsilon);
        gradients.resize(in.size());
        return gradients;
      };
      op_case({.inputs = {x, gain, bias},
               .op = [=](auto& in) { return layer_norm(in[0], in[1], in[2], epsilon); },
               .reference = [=](auto& in) { return reference::layer_norm(in[0], in[1], in[2], epsilon); },
               .reference_backward = backward,
               .gains = 2});
      op_case({.inputs = {x, gain},
               .op = [=](auto& in) { return layer_norm(in[0], in[1], {}, epsilon); },
               .reference = [=](auto& in) { return reference::layer_norm(in[0], in[1], {}, epsilon); },
               .reference_backward = backward,
               .gains = 1});
    }
}

TEST_CASE("layer_norm: a mean far from 0 costs no accuracy, one column gives the bias, errors") {
  Tensor x = random({2, 64}, 1);
  for (double& v : x.data<double>()) v = 1000 + double(float(v));
  const Tensor gain = random({64}, 2), y = layer_norm(converted(x, DType::f32), converted(gain, DType::f32), {}, 1e-5);
  CHECK(relative_error(y, reference::layer_norm(converted(converted(x, DType::f32), DType::f64), gain, {}, 1e-5)) <
        1e-4);
  CHECK(identical(layer_norm(random({1, 1}, 1), random({1}, 2), random({1}, 3), 1e-5).reshape({1}), random({1}, 3)));
  CHECK_THROWS_WITH_AS(layer_norm(random({2, 3}, 1), random({3}, 1), random({2}, 1), 1e-5),
                       doctest::Contains("layer_norm: "), Error);
  CHECK_THROWS_AS(layer_norm(random({2, 3}, 1), random({2}, 1), {}, 1e-5), Error);
}
