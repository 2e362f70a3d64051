#include "ops/dropout.h"

#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The specification: one element at a time.
Tensor dropped(const Tensor& x, double probability, RandomKey key, int64_t first_row) {
  Tensor y(x.shape(), DType::f64);
  const int64_t width = x.shape(-1);
  for (int64_t i = 0; i < x.size(); ++i) {
    const auto words = philox(key.with(uint64_t(first_row + i / width)), uint64_t(i % width / 4));
    y.data<double>()[i] =
        uniform(words[size_t(i % width % 4)]) < probability ? 0 : x.data<double>()[i] / (1 - probability);
  }
  return y;
}

}  // namespace

DEVICE_CASE("dropout: against the obvious loop, the gradient drops the same elements") {
  for (const Shape& shape : {Shape{1}, Shape{5, 3}, Shape{2, 3, 17}, Shape{0, 4}, Shape{100, 1001}})
    for (const double p : {0.1, 0.75}) {
      const RandomKey key = RandomKey{3, 0}.with(5);
      op_case({{random(shape, 1)},
               [=](auto& in) { return dropout(in[0], p, key, 7); },
               [=](auto& in) { return dropped(in[0], p, key, 7); },
               [=](const Tensor& dy, auto&) { return std::vector{dropped(dy, p, key, 7)}; }});
    }
}

TEST_CASE("dropout: the right share is dropped, rows go by their global number") {
  Tensor ones({256, 64}, DType::f32);
  fill(ones, 1);
  const Tensor y = dropout(ones, 0.25, {1, 2});
  int64_t zeros = 0;
  for (float v : y.data<float>()) {
    CHECK((v == 0 || v == float(1 / 0.75)));
    zeros += v == 0;
  }
  CHECK(std::abs(double(zeros) / 16384 - 0.25) < 0.02);  // 6 standard deviations
  Tensor half({128, 64}, DType::f32);
  fill(half, 1);
  const Tensor later = dropout(half, 0.25, {1, 2}, 128);
  CHECK(std::equal(later.data<float>().begin(), later.data<float>().end(), y.data<float>().begin() + 128 * 64));
  CHECK(!identical(dropout(ones, 0.25, {1, 3}), y));
}

GPU_CASE("dropout: the bits of the CPU") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Shape& shape : {Shape{300, 7}, Shape{3, 5, 1030}}) {
      const Tensor x = random(shape, 1, 1, dtype);
      CHECK(identical(dropout(there(x), 0.3, {1, 2}, 1 << 20), dropout(x, 0.3, {1, 2}, 1 << 20)));
    }
}

TEST_CASE("dropout: 0 is the identity, 1 and beyond an error") {
  const Tensor x = random({2, 3}, 1);
  CHECK(dropout(x, 0, {}).id() == x.id());
  CHECK_THROWS_WITH_AS(dropout(x, 1, {}), doctest::Contains("dropout: expected a probability in [0, 1), got 1"), Error);
  CHECK_THROWS_AS(dropout(x, -0.1, {}), Error);
}
