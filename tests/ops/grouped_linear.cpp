#include "ops/grouped_linear.h"

#include <doctest/doctest.h>

#include "core/parallel.h"
#include "ops/linear.h"
#include "ops/reference.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

// Empty groups at the start, in the middle and at the end; N is above the last offset.
const std::vector<int32_t> kOffsets = {0, 0, 5, 5, 18, 161, 161};
constexpr int64_t kGroups = 6, kBound = 300;

Tensor wide(const Tensor& t) { return converted(t, DType::f64); }

/// What a row block of a matrix holds, as a tensor of its own.
Tensor slice(const Tensor& t, int64_t begin, int64_t end) {
  Tensor s({end - begin, t.shape(-1)}, t.dtype());
  const int64_t row = t.shape(-1) * size_of(t.dtype());
  if (end > begin)
    std::memcpy(s.address(), static_cast<const char*>(t.address()) + begin * row, size_t((end - begin) * row));
  return s;
}

}  // namespace

TEST_CASE("grouped_linear: gradients agree with differences") {
  const Tensor offsets = tensor_of<int32_t>({0, 2, 2, 7, 8});
  CHECK(gradient_error({random({11, 5}, 1), random({4, 3, 5}, 2), random({4, 3}, 3)},
                       [&](auto& in) { return probe(grouped_linear(in[0], in[1], offsets, in[2]), 4); }) < 1e-8);
  CHECK(gradient_error({random({8, 5}, 1), random({4, 3, 5}, 2)},
                       [&](auto& in) { return probe(grouped_linear(in[0], in[1], offsets), 4); }) < 1e-8);
}

TEST_CASE("grouped_linear: forward and backward against the reference, rows of no group are zero") {
  const Tensor offsets = tensor_of(kOffsets);
  struct Case {
    Precision precision;
    double tolerance;
  };
  for (const auto [precision, tolerance] :
       {Case{Precision::f64(), 1e-13}, {Precision::fp32(), 1e-5}, {Precision::bf16(), 1e-2}}) {
    const DType dtype = precision.compute;
    CAPTURE(dtype);
    const Tensor rows = random({kBound, 33}, 1, 1, dtype), dy = random({kBound, 17}, 4, 1, dtype);
    Parameter w({kGroups, 17, 33}, precision), bias({kGroups, 17}, precision);
    copy(w.value, random({kGroups, 17, 33}, 2));
    copy(bias.value, random({kGroups, 17}, 3));
    fill(w.grad, 9);
    Parameter* all[] = {&w, &bias};
    Tape tape(all);
    tape.watch(rows);
    const Tensor y = grouped_linear(rows, w, offsets, bias);
    tape.backward(probe(y, 4));
    CHECK(relative_error(y, reference::grouped_linear(wide(rows), wide(w.value), offsets, wide(bias.value))) <
          tolerance);
    const auto expected = reference::grouped_linear_backward(wide(dy), wide(rows), wide(w.value), offsets);
    CHECK(relative_error(tape.gradient(rows), expected.dx) < tolerance);
    CHECK(relative_error(w.grad, expected.dw) < 1e-5);
    CHECK(relative_error(bias.grad, expected.dbias) < 1e-5);
    for (const Tensor& t : {y, tape.gradient(rows)}) {
      const Tensor unused = slice(t, kOffsets.back(), kBound);
      CHECK(dot(unused, unused) == 0);
    }
    const Tensor empty = slice(w.grad.reshape({kGroups * 17, 33}), 5 * 17, 6 * 17);
    CHECK(dot(empty, empty) == 0);
  }
}

TEST_CASE("grouped_linear: each group has the bits of linear on its rows alone, at any number of threads") {
  const Tensor offsets = tensor_of(kOffsets);
  const Tensor rows = random({kBound, 40}, 1, 1, DType::f32), w = random({kGroups, 24, 40}, 2, 1, DType::f32);
  for (int n : {1, 2, 3}) {
    set_threads(n);
    const Tensor y = grouped_linear(rows, w, offsets);
    for (int64_t e = 0; e < kGroups; ++e) {
      const int64_t begin = kOffsets[size_t(e)], end = kOffsets[size_t(e) + 1];
      const Tensor alone = linear(slice(rows, begin, end), slice(w.reshape({kGroups * 24, 40}), e * 24, e * 24 + 24));
      CHECK(identical(slice(y, begin, end), alone));
    }
  }
  set_threads(0);
}

TEST_CASE("grouped_linear: two uses add up, zero rows work, wrong offsets are an error") {
  const Tensor offsets = tensor_of<int32_t>({0, 2, 4});
  CHECK(gradient_error({random({4, 3}, 1), random({2, 3, 3}, 2)}, [&](auto& in) {
          return probe(grouped_linear(grouped_linear(in[0], in[1], offsets), in[1], offsets), 4);
        }) < 1e-8);
  CHECK(grouped_linear(random({0, 3}, 1), random({2, 3, 3}, 2), tensor_of<int32_t>({0, 0, 0})).shape() == Shape{0, 3});
  CHECK_THROWS_AS(grouped_linear(random({3, 3}, 1), random({2, 3, 3}, 2), offsets), Error);
  CHECK_THROWS_AS(grouped_linear(random({4, 3}, 1), random({2, 3, 3}, 2), tensor_of<int32_t>({0, 3, 2})), Error);
  CHECK_THROWS_AS(grouped_linear(random({4, 3}, 1), random({2, 3, 3}, 2), tensor_of<int32_t>({0, 4})), Error);
}
