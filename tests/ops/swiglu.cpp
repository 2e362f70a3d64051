#include "ops/swiglu.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("swiglu: against the reference") {
  for (const Shape& shape : {Shape{1, 2}, Shape{5, 16}, Shape{2, 3, 14}, Shape{0, 8}, Shape{3, 0}, Shape{67, 1024}})
    op_case({{random(shape, 1, 2)},
             [](auto& in) { return swiglu(in[0]); },
             [](auto& in) { return reference::swiglu(in[0]); },
             [](const Tensor& dy, auto& in) { return std::vector{reference::swiglu_backward(dy, in[0])}; }});
}

TEST_CASE("swiglu: far ends are finite, an odd axis is an error that names it") {
  const Tensor y = swiglu(tensor_of<float>({-1000, 1000, 2, 3}).reshape({1, 4}));
  CHECK(y.data<float>()[0] == 0);
  CHECK(y.data<float>()[1] == 3000);
  CHECK_THROWS_WITH_AS(swiglu(random({4, 3}, 1)),
                       doctest::Contains("swiglu: the last axis must hold [gate | up], got [4, 3]"), Error);
}
