#include "ops/rope.h"

#include "ops/reference_attention.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

void rope_case(const Shape& shape, const std::vector<int32_t>& positions, double theta) {
  const Tensor position = integers(positions), placed = there(position);
  op_case({{random(shape, 1)},
           [=](auto& in) { return rope(in[0], placed, theta); },
           [=](auto& in) { return reference::rope(in[0], position, theta); },
           [=](const Tensor& dy, auto&) { return std::vector{reference::rope(dy, position, theta, -1)}; }});
}

}  // namespace

DEVICE_CASE("rope: against the reference, for positions that repeat, are far apart, or negative") {
  rope_case({1, 1, 2}, {0}, 10000);
  rope_case({6, 3, 10}, {0, 1, 2, 0, 1, 2}, 10000);
  rope_case({4, 2, 8}, {100000, 5, -7, 0}, 500000);
  rope_case({0, 2, 8}, {}, 10000);
  std::vector<int32_t> many;
  for (int i = 0; i < 300; ++i) many.push_back(i % 37);
  rope_case({300, 2, 64}, many, 10000);
}

TEST_CASE("rope: a row has the same bits alone as among others, and length is kept") {
  const Tensor x = random({8, 2, 16}, 1, 1, DType::f32);
  const Tensor y = rope(x, integers({0, 1, 2, 3, 4, 5, 6, 7}), 10000);
  Tensor row({1, 2, 16}, DType::f32);
  std::copy_n(x.data<float>().begin() + 5 * 32, 32, row.data<float>().begin());
  const Tensor alone = rope(row, integers({5}), 10000);
  CHECK(std::equal(alone.data<float>().begin(), alone.data<float>().end(), y.data<float>().begin() + 5 * 32));
  CHECK(dot(y, y) == doctest::Approx(dot(x, x)).epsilon(1e-6));
  CHECK(std::equal(x.data<float>().begin(), x.data<float>().begin() + 32, y.data<float>().begin()));  // position 0
}

TEST_CASE("rope: what does not fit is an error that names the shapes") {
  CHECK_THROWS_WITH_AS(rope(random({2, 3, 5}, 1), integers({0, 1}), 1e4),
                       doctest::Contains("rope: expected [T, H, d] with an even d, got [2, 3, 5]"), Error);
  CHECK_THROWS_WITH_AS(rope(random({2, 3, 4}, 1), integers({0}), 1e4),
                       doctest::Contains("rope: expected positions i32 [2], got i32 [1]"), Error);
}
