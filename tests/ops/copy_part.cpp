#include "ops/copy_part.h"

#include <doctest/doctest.h>

#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("copy_part: those elements and no others, in every pair of dtypes") {
  for (const DType to : {DType::f32, DType::bf16, DType::f64})
    for (const DType from : {DType::f32, DType::bf16, DType::f64})
      for (const int64_t count : {0, 1, 300, 700}) {
        CAPTURE(to);
        CAPTURE(from);
        const Tensor x = random({7, 100}, 1, 1, from), y = there(random({1000}, 2, 1, to)), before = on_host(clone(y));
        const int64_t at = 300, first = 700 - count;
        copy_part(y, at, there(x), first, count);
        const Tensor expected = converted(before, to), part = converted(x, to), after = on_host(y);
        visit_float(to, [&]<class T>() {
          for (int64_t i = 0; i < 1000; ++i) {
            const bool inside = i >= at && i < at + count;
            const T wanted = inside ? part.data<T>()[size_t(first + i - at)] : before.data<T>()[size_t(i)];
            REQUIRE(double(Accumulator<T>(after.data<T>()[size_t(i)])) == double(Accumulator<T>(wanted)));
          }
        });
      }
}

TEST_CASE("copy_part: refuses what lies outside either tensor") {
  const Tensor to({4}, DType::f32), from({2, 3}, DType::f32);
  from.zero();
  CHECK_THROWS_WITH_AS(copy_part(to, 2, from, 0, 3), doctest::Contains("elements 2 to 5 of [4]"), Error);
  CHECK_THROWS_WITH_AS(copy_part(to, 0, from, 4, 3), doctest::Contains("elements 4 to 7 of [2, 3]"), Error);
  CHECK_THROWS_AS(copy_part(to, -1, from, 0, 1), Error);
}
