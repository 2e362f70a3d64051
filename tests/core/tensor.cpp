#include "core/tensor.h"

#include <doctest/doctest.h>

#include "core/copy.h"

using namespace agon;

TEST_CASE("tensor: none, and one without elements") {
  const Tensor none, empty({0, 3}, DType::f32);
  CHECK(!none);
  CHECK(none.size() == 0);
  CHECK(none.id() == 0);
  CHECK(empty);
  CHECK(empty.size() == 0);
  CHECK(empty.bytes() == 0);
  CHECK(empty.data<float>().empty());
  CHECK_THROWS_AS(none.data<float>(), Error);
}

TEST_CASE("tensor: a copy shares the block, and unique tells") {
  const Tensor a = tensor_of<float>({1, 2, 3, 4});
  CHECK(a.unique());
  {
    const Tensor b = a;
    CHECK(!a.unique());
    CHECK(b.id() == a.id());
    b.data<float>()[1] = 9;
  }
  CHECK(a.unique());
  CHECK(a.data<const float>()[1] == 9);
}

TEST_CASE("tensor: reshape keeps block and identity, detach the block alone, without_data the identity alone") {
  const Tensor a = tensor_of<float>({1, 2, 3, 4, 5, 6});
  const Tensor b = a.reshape({2, 3}), c = a.detach(), d = b.without_data();
  CHECK(b.shape() == Shape{2, 3});
  CHECK(b.address() == a.address());
  CHECK(b.id() == a.id());
  CHECK(c.address() == a.address());
  CHECK(c.id() != a.id());
  CHECK(d.id() == a.id());
  CHECK(d.shape() == Shape{2, 3});
  CHECK(d.dtype() == DType::f32);
  CHECK(!d);
  CHECK(Tensor({1}, DType::f32).id() != Tensor({1}, DType::f32).id());
  CHECK_THROWS_AS(a.reshape({5}), Error);
  CHECK_THROWS_AS(Tensor().reshape({0}), Error);
}

TEST_CASE("tensor: a part has the block's elements from one to another, and keeps it alive") {
  Tensor a = tensor_of<float>({1, 2, 3, 4, 5, 6});
  const Tensor part = a.reshape({2, 3}).part(2, 3), none = a.part(6, 0);
  CHECK(part.shape() == Shape{3});
  CHECK(part.id() != a.id());
  CHECK(!a.unique());
  CHECK(!part.unique());
  part.data<float>()[0] = 9;
  CHECK(a.data<float>()[2] == 9);
  CHECK(none.size() == 0);
  CHECK_THROWS_AS(a.part(4, 3), Error);
  CHECK_THROWS_AS(a.part(-1, 2), Error);
  CHECK_THROWS_AS(Tensor().part(0, 0), Error);
  a = {};
  CHECK(part.data<float>()[2] == 5);
}

TEST_CASE("tensor: without_data lets the memory go") {
  Arena arena;
  const Arena::Scope scope(arena);
  Tensor a({100}, DType::f32);
  const Tensor name = a.without_data();
  CHECK(a.unique());
  a = {};
  CHECK(arena.live() == 0);
}

TEST_CASE("tensor: access only as what it holds") {
  const Tensor a({2}, DType::bf16);
  CHECK_NOTHROW(a.data<bf16>());
  CHECK_NOTHROW(a.data<const bf16>());
  CHECK_THROWS_AS(a.data<float>(), Error);
  CHECK_THROWS_AS(a.data<f16>(), Error);
}

TEST_CASE("tensor: item of any dtype, of one element only") {
  CHECK(tensor_of<float>({1.5f}).item() == 1.5);
  CHECK(tensor_of<int32_t>({-7}).reshape({}).item() == -7);
  CHECK(tensor_of<bf16>({bf16(2.5f)}).reshape({1, 1}).item() == 2.5);
  CHECK_THROWS_AS(tensor_of<float>({1, 2}).item(), Error);
  CHECK_THROWS_AS(Tensor().item(), Error);
}

TEST_CASE("tensor: zero and bytes") {
  const Tensor a({3, 5}, DType::f64);
  fill(a, 4);
  a.zero();
  for (double x : a.data<double>()) CHECK(x == 0);
  CHECK(a.bytes() == 120);
}
