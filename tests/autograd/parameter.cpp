#include "autograd/parameter.h"

#include <doctest/doctest.h>

#include <utility>

#include "core/copy.h"

using namespace agon;

TEST_CASE("parameter: starts at zero, in the dtypes of its precision") {
  for (Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()}) {
    const Parameter p({3, 2}, precision);
    CHECK(p.value.dtype() == precision.compute);
    CHECK(p.master.dtype() == precision.master);
    CHECK(p.grad.dtype() == precision.master);
    CHECK(p.grad.shape() == Shape{3, 2});
    CHECK(!p.has_grad);
    const Tensor value = converted(p.value, DType::f64), master = converted(p.master, DType::f64);
    for (size_t i = 0; i < 6; ++i) CHECK((value.data<double>()[i] == 0 && master.data<double>()[i] == 0));
    CHECK((p.master.address() == p.value.address()) == (precision.compute == precision.master));
  }
}

TEST_CASE("parameter: refresh rounds the master into the value") {
  Parameter p({2}, Precision::bf16());
  p.master.data<float>()[0] = 1 + 0x1p-7f + 0x1p-9f;
  p.master.data<float>()[1] = -3;
  CHECK(float(p.value.data<bf16>()[0]) == 0);
  p.refresh();
  CHECK(float(p.value.data<bf16>()[0]) == 1 + 0x1p-7f);
  CHECK(float(p.value.data<bf16>()[1]) == -3);
  Parameter same({1}, Precision::fp32());
  same.master.data<float>()[0] = 5;
  CHECK_NOTHROW(same.refresh());
  CHECK(same.value.data<float>()[0] == 5);
}

TEST_CASE("parameter: absent ones are empty, a move keeps the blocks and the tape's identity") {
  CHECK(!Parameter());
  Parameter a({4}, Precision::fp32());
  CHECK(a);
  const auto id = a.value.id();
  const Parameter b = std::move(a);
  CHECK(b.value.id() == id);
  CHECK(static_cast<const Tensor&>(b).id() == id);
}

TEST_CASE("parameter: what stays in the master's dtype") {
  CHECK(in_master(Precision::bf16()).compute == DType::f32);
  CHECK(in_master(Precision::f64()).compute == DType::f64);
}
