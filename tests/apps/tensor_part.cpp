#include "apps/tensor_part.h"

#include <doctest/doctest.h>

#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("tensor part: without more it is the whole") {
  const TensorPart part = resolved({"w", Tensor({2, 3}, DType::f32)});
  CHECK(part.whole == Shape{2, 3});
  CHECK(resolved({"scalar", Tensor({}, DType::f32)}).whole == Shape{});
  CHECK(resolved({"none", Tensor({0, 3}, DType::f32)}).whole == Shape{0, 3});
  CHECK(resolved({"w", Tensor({3}, DType::f32), 3, Shape{2, 3}}).whole == Shape{2, 3});
  CHECK(resolved({"nothing of a scalar", Tensor({0}, DType::f32), 1, Shape{}}).whole == Shape{});
}

TEST_CASE("tensor part: one that reaches beyond the whole is refused") {
  const auto refusal = [](const TensorPart& part) { return error([&] { resolved(part); }); };
  CHECK(contains(refusal({"w", {}}), "tensor 'w' is none"));
  CHECK(contains(refusal({"w", Tensor({3}, DType::f32), 4, Shape{2, 3}}), "elements 4 to 7 of [2, 3], which has 6"));
  CHECK(contains(refusal({"w", Tensor({3}, DType::f32), -1, Shape{2, 3}}), "elements -1 to 2"));
  CHECK(contains(refusal({"w", Tensor({7}, DType::f32), 0, Shape{2, 3}}), "elements 0 to 7"));
  CHECK(contains(refusal({"w", Tensor({3}, DType::f32), 1}), "elements 1 to 4 of [3]"));
}
