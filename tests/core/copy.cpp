#include "core/copy.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/random.h"

using namespace agon;

namespace {
constexpr DType kAll[] = {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8};
}

TEST_CASE("copy: between all dtypes, of values all can hold") {
  const Tensor values = tensor_of<double>({0, 1, 2, 100, 127, 200});
  for (DType from : kAll)
    for (DType to : kAll) {
      const Tensor there = converted(converted(values, from), to);
      CHECK(there.dtype() == to);
      const Tensor back = converted(there, DType::f64);
      for (size_t i = 0; i < 6; ++i) CHECK(back.data<double>()[i] == values.data<double>()[i]);
    }
}

TEST_CASE("copy: rounds once") {
  // Just above halfway between two bf16 (f16): the way through a float would round twice, the second time down.
  CHECK(converted(tensor_of<double>({1 + 0x1p-8 + 0x1p-40}), DType::bf16).item() == 1 + 0x1p-7);
  CHECK(converted(tensor_of<double>({1 + 0x1p-11 + 0x1p-40}), DType::f16).item() == 1 + 0x1p-10);
  CHECK(converted(tensor_of<int32_t>({(1 << 30) + (1 << 22) + 1}), DType::bf16).item() == 0x1p30 + 0x1p23);
  CHECK(converted(tensor_of<float>({1 + 0x1p-8f}), DType::bf16).item() == 1);
  CHECK(converted(tensor_of<double>({1 + 0x1p-24 + 0x1p-50}), DType::f32).item() == 1 + 0x1p-23);
}

TEST_CASE("copy: long enough for several tasks, to and from bf16") {
  const Tensor x({100'003}, DType::f32);
  fill_normal(x, {.seed = 1}, 1);
  const Tensor y = converted(x, DType::bf16), z = converted(y, DType::f32);
  for (size_t i = 0; i < size_t(x.size()); ++i) REQUIRE(z.data<float>()[i] == float(bf16(x.data<float>()[i])));
}

TEST_CASE("copy: equal sizes, whatever the shapes") {
  const Tensor a = tensor_of<float>({1, 2, 3, 4}), b({2, 2}, DType::f64);
  copy(b, a);
  CHECK(b.data<double>()[3] == 4);
  CHECK_THROWS_AS(copy(Tensor({3}, DType::f32), a), Error);
  CHECK_NOTHROW(copy(Tensor({0, 4}, DType::bf16), Tensor({0}, DType::f32)));
  CHECK_NOTHROW(copy(a, a));
}

TEST_CASE("copy: a clone is another block, fill sets every element and nothing when there is none") {
  const Tensor a = tensor_of<float>({1, 2}), b = clone(a);
  CHECK(b.address() != a.address());
  CHECK(b.data<float>()[1] == 2);
  for (DType t : kAll) {
    const Tensor x({5}, t);
    fill(x, 3);
    const Tensor values = converted(x, DType::f64);
    for (double v : values.data<double>()) CHECK(v == 3);
  }
  CHECK_NOTHROW(fill(Tensor(), 1));
}
