#include "ops/softmax.h"

#include <limits>

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("softmax: against the reference") {
  for (const Shape& shape :
       {Shape{1, 1}, Shape{5, 3}, Shape{7}, Shape{2, 3, 17}, Shape{0, 4}, Shape{257, 65}, Shape{2, 1030}})
    op_case({{random(shape, 1, 3)},
             [](auto& in) { return softmax(in[0]); },
             [](auto& in) { return reference::softmax(in[0]); },
             [](const Tensor& dy, auto& in) { return std::vector{reference::softmax_backward(dy, in[0])}; }});
}

DEVICE_CASE("softmax: large scores, -inf and NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = tensor_of<float>({1e30f, 1e30f, -infinity, 3, NAN, 1}).reshape({2, 3}),
               y = on_host(softmax(there(x)));
  CHECK(y.data<float>()[0] == 0.5f);
  CHECK(y.data<float>()[2] == 0);
  for (size_t i = 3; i < 6; ++i) CHECK(std::isnan(y.data<float>()[i]));
  CHECK_THROWS_AS(softmax(random({}, 1)), Error);
}

DEVICE_CASE("softmax: the gradient keeps its digits where a probability is nearly 1") {
  const std::vector<double> at_first{12, 0, 1}, at_last{0, 1, 12};
  for (const std::vector<double>& scores : {at_first, at_last}) {
    const Tensor wide = tensor_of(scores).reshape({1, 3}), x = there(converted(wide, DType::f32));
    const Tensor dy = tensor_of<double>({1000, 1001, 1003}).reshape({1, 3});
    const Tensor y = softmax(x), dx = there(Tensor({1, 3}, DType::f32));
    run<Softmax::Backward>(x.device(), dx, there(converted(dy, DType::f32)), y);
    CHECK(relative_error(dx, reference::softmax_backward(dy, wide)) < 1e-5);
  }
}
