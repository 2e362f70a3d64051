#include "ops/layer_norm.h"

#include "ops/reference.h"
#include "tests/ops/normed.h"

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

DEVICE_CASE("add_layer_norm: the bits and gradients of add and layer_norm, with and without bias") {
  for (const Shape& shape : {Shape{0, 4}, Shape{1, 1}, Shape{1, 7}, Shape{5, 3}, Shape{2, 3, 40}, Shape{300, 65},
                             Shape{3, 1300}})
    for (const bool biased : {false, true}) {
      std::vector<Tensor> inputs{random(shape, 1), random(shape, 2), random({shape[-1]}, 3)};
      if (biased) inputs.push_back(random({shape[-1]}, 4));
      const auto bias = [=](auto& in) { return biased ? in[3] : Tensor(); };
      same_bits_case([=](auto& in) { return add_layer_norm(in[0], in[1], in[2], bias(in), 1e-5); },
                     [=](auto& in) {
                       const Tensor sum = add(in[0], in[1]);
                       return Normed{sum, layer_norm(sum, in[2], bias(in), 1e-5)};
                     },
                     inputs, biased ? 2 : 1);
    }
}

DEVICE_CASE("add_layer_norm: a residual that nobody else holds gives its memory to the sum") {
  const Tensor x = there(random({5, 7}, 1, 1, DType::f32)), gain = there(random({7}, 2, 1, DType::f32));
  Tensor residual = there(random({5, 7}, 3, 1, DType::f32));
  const Normed apart = add_layer_norm(x, residual, gain, {}, 1e-5);
  const void* const place = residual.address();
  CHECK(apart.sum.address() != place);
  const Normed in_place = add_layer_norm(x, std::move(residual), gain, {}, 1e-5);
  CHECK(in_place.sum.address() == place);
  CHECK(identical(in_place.sum, apart.sum));
  CHECK(identical(in_place.y, apart.y));
}

TEST_CASE("add_layer_norm: a tensor added to itself, errors") {
  const Tensor x = random({4, 6}, 1), gain = random({6}, 2);
  CHECK(gradient_error({x, gain, random({6}, 5)}, [](auto& in) {
          const Normed out = add_layer_norm(in[0], in[0], in[1], in[2], 1e-5);
          return add(probe(out.sum, 3), probe(out.y, 4));
        }) < 1e-8);
  CHECK_THROWS_WITH_AS(add_layer_norm(x, random({4, 5}, 1), gain, {}, 1e-5), doctest::Contains("add_layer_norm: "),
                       Error);
  CHECK_THROWS_WITH_AS(add_layer_norm(x, x, gain, random({5}, 1), 1e-5), doctest::Contains("add_layer_norm: "), Error);
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
