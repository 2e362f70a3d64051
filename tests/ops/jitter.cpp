#include "ops/jitter.h"

#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The specification: one element at a time.
Tensor jittered(const Tensor& x, double amount, RandomKey key, int64_t first_row) {
  Tensor y(x.shape(), DType::f64);
  const int64_t D = x.shape(1);
  for (int64_t i = 0; i < x.size(); ++i) {
    const auto words = philox(key, uint64_t((first_row + i / D) * ((D + 3) / 4) + i % D / 4));
    y.data<double>()[i] = x.data<double>()[i] * (1 + amount * (2 * double(uniform(words[size_t(i % D % 4)])) - 1));
  }
  return y;
}

}  // namespace

DEVICE_CASE("jitter: against the obvious loop, the gradient has the same factors") {
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 3}, Shape{6, 17}, Shape{0, 4}, Shape{100, 68}})
    for (const double amount : {0.0, 0.1, 0.75}) {
      const RandomKey key = RandomKey{3, 0}.with(5);
      op_case({{random(shape, 1)},
               [=](auto& in) { return jitter(in[0], amount, key, 7); },
               [=](auto& in) { return jittered(in[0], amount, key, 7); },
               [=](const Tensor& dy, auto&) { return std::vector{jittered(dy, amount, key, 7)}; }});
    }
}

TEST_CASE("jitter: refuses what is no amount") {
  const Tensor x = random({2, 3}, 1);
  CHECK_THROWS_WITH_AS(jitter(x, 1, {}), doctest::Contains("amount in [0, 1)"), Error);
  CHECK_THROWS_AS(jitter(x, -0.1, {}), Error);
}
