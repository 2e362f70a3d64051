#include "ops/rms_norm.h"

#include "ops/reference.h"
#include "tests/ops/normed.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("rms_norm: against the reference, the gain in the dtype of x or f32") {
  for (const Shape& shape : {Shape{1, 2}, Shape{5, 3}, Shape{2, 3, 40}, Shape{0, 4}, Shape{300, 65}, Shape{3, 1300}})
    for (const double epsilon : {1e-5, 0.3})
      op_case({.inputs = {random(shape, 1), random({shape[-1]}, 2)},
               .op = [=](auto& in) { return rms_norm(in[0], in[1], epsilon); },
               .reference = [=](auto& in) { return reference::rms_norm(in[0], in[1], epsilon); },
               .reference_backward = [=](const Tensor& dy,
                                         auto& in) { return reference::rms_norm_backward(dy, in[0], in[1], epsilon); },
               .gains = 1});
}

DEVICE_CASE("add_rms_norm: the bits and gradients of add and rms_norm") {
  for (const Shape& shape : {Shape{0, 4}, Shape{1, 1}, Shape{1, 7}, Shape{5, 3}, Shape{2, 3, 40}, Shape{300, 65},
                             Shape{3, 1300}})
    for (const double epsilon : {1e-5, 0.3})
      same_bits_case([=](auto& in) { return add_rms_norm(in[0], in[1], in[2], epsilon); },
                     [=](auto& in) {
                       const Tensor sum = add(in[0], in[1]);
                       return Normed{sum, rms_norm(sum, in[2], epsilon)};
                     },
                     {random(shape, 1), random(shape, 2), random({shape[-1]}, 3)}, 1);
}

DEVICE_CASE("add_rms_norm: a residual that nobody else holds gives its memory to the sum") {
  const Tensor x = there(random({5, 7}, 1, 1, DType::f32)), gain = there(random({7}, 2, 1, DType::f32));
  Tensor residual = there(random({5, 7}, 3, 1, DType::f32));
  const Normed apart = add_rms_norm(x, residual, gain, 1e-5);
  const void* const place = residual.address();
  CHECK(apart.sum.address() != place);
  const Normed in_place = add_rms_norm(x, std::move(residual), gain, 1e-5);
  CHECK(in_place.sum.address() == place);
  CHECK(identical(in_place.sum, apart.sum));
  CHECK(identical(in_place.y, apart.y));
}

TEST_CASE("add_rms_norm: a tensor added to itself, errors") {
  const Tensor x = random({4, 6}, 1), gain = random({6}, 2);
  CHECK(gradient_error({x, gain}, [](auto& in) {
          const Normed out = add_rms_norm(in[0], in[0], in[1], 1e-5);
          return add(probe(out.sum, 3), probe(out.y, 4));
        }) < 1e-8);
  CHECK(identical(add_rms_norm(x, x, gain, 1e-5).sum, add(x, x)));
  CHECK_THROWS_WITH_AS(add_rms_norm(x, random({4, 5}, 1), gain, 1e-5), doctest::Contains("add_rms_norm: "), Error);
  CHECK_THROWS_WITH_AS(add_rms_norm(x, converted(x, DType::f32), gain, 1e-5), doctest::Contains("f32 [4, 6]"), Error);
  CHECK_THROWS_WITH_AS(add_rms_norm(x, x, random({4}, 1), 1e-5), doctest::Contains("add_rms_norm: "), Error);
}

TEST_CASE("rms_norm: heads of a reshaped tensor, a row of zeros, errors") {
  CHECK(gradient_error({random({4, 6}, 1), random({3}, 2)}, [](auto& in) {
          return probe(rms_norm(in[0].value.reshape({4, 2, 3}), in[1], 1e-5), 3);
        }) < 1e-8);
  CHECK(gradient_error({random({1, 1}, 1), random({1}, 2)},
                       [](auto& in) { return probe(rms_norm(in[0], in[1], 0.3), 3); }) < 1e-8);
  const Tensor zero(Shape{1, 3}, DType::f32);
  CHECK(rms_norm(zero.zero(), random({3}, 1, 1, DType::f32), 1e-5).data<float>()[0] == 0);
  CHECK_THROWS_WITH_AS(rms_norm(random({2, 3}, 1), random({2}, 1), 1e-5), doctest::Contains("rms_norm: "), Error);
  CHECK_THROWS_AS(rms_norm(random({2, 3}, 1, 1, DType::f32), random({3}, 1, 1, DType::bf16), 1e-5), Error);
}
