#include "ops/accumulate.h"

#include <doctest/doctest.h>

#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("accumulate: adds in f64 what is stored in less") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const int64_t n : {0, 1, 1000}) {
      const Tensor start = random({n}, 1), x = random({n}, 2, 1, dtype), sum = there(clone(start)), more = there(x);
      accumulate(sum, more);
      accumulate(sum, more);
      const Tensor wide = converted(x, DType::f64), found = on_host(sum);
      for (size_t i = 0; i < size_t(n); ++i)
        REQUIRE(found.data<double>()[i] == start.data<double>()[i] + wide.data<double>()[i] + wide.data<double>()[i]);
    }
  CHECK_THROWS_AS(accumulate(Tensor({2}, DType::f64), Tensor({3}, DType::f64)), Error);
  CHECK_THROWS_AS(accumulate(Tensor({2}, DType::f32), Tensor({2}, DType::f32)), Error);
}
