#include "ops/top_k.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The specification: a stable sort by value, NaN behind everything.
Tensor sorted(const Tensor& scores, int64_t k) {
  Tensor index({scores.shape(0), k}, DType::i32);
  std::vector<int32_t> order(static_cast<size_t>(scores.shape(1)));
  for (int64_t t = 0; t < scores.shape(0); ++t) {
    const auto row = scores.data<double>().subspan(size_t(t * scores.shape(1)));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return row[size_t(a)] > row[size_t(b)] || (std::isnan(row[size_t(b)]) && !std::isnan(row[size_t(a)]));
    });
    std::copy_n(order.begin(), k, index.data<int32_t>().begin() + t * k);
  }
  return index;
}

}  // namespace

DEVICE_CASE("top_k: a stable sort of every row, with ties, infinities and NaN") {
  Random draw({1, 0});
  for (const Shape& shape :
       {Shape{1, 1}, Shape{200, 3}, Shape{200, 8}, Shape{50, 65}, Shape{5, 300}, Shape{0, 4}, Shape{3, 0}}) {
    Tensor scores(shape, DType::f64);
    for (double& v : scores.data<double>()) {
      v = double(draw.below(7)) - 3;  // many ties
      if (v == 3) v = std::numeric_limits<double>::quiet_NaN();
      if (v == -3) v = -std::numeric_limits<double>::infinity();
    }
    for (int64_t k = 0; k <= shape[1]; k = k < 4 ? k + 1 : k * 2) {
      if (device_of_case().kind == Device::cpu) CHECK(identical(top_k(scores, k), sorted(scores, k)));
      CHECK(identical(top_k(there(converted(scores, DType::f32)), k), sorted(scores, k)));
    }
    CHECK(identical(top_k(there(converted(scores, DType::f32)), shape[1]), sorted(scores, shape[1])));
  }
}

TEST_CASE("top_k: the same for any number of threads, and errors") {
  const Tensor scores = random({5000, 16}, 1);
  set_threads(3);
  const Tensor three = top_k(scores, 2);
  set_threads(1);
  CHECK(identical(top_k(scores, 2), three));
  set_threads(0);
  CHECK_THROWS_WITH_AS(top_k(scores, 17),
                       doctest::Contains("top_k: cannot take 17 of each row of a tensor of shape [5000, 16]"), Error);
  CHECK_THROWS_AS(top_k(random({3}, 1), 1), Error);
  CHECK_THROWS_AS(top_k(random({3, 3}, 1, 1, DType::bf16), 1), Error);
}
