#include "moe/matrix_part.h"

#include <doctest/doctest.h>

#include "tests/moe/support.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("matrix_part: taken, put back rounded, and some rows") {
  const Tensor whole = random({7, 5}, 1, 1, DType::f32);
  for (const auto& [row, column, n, m] :
       {std::tuple{0, 0, 7, 5}, {2, 0, 3, 5}, {6, 4, 1, 1}, {1, 3, 4, 1}, {7, 0, 0, 5}}) {
    const Tensor part({n, m}, DType::f32, device_of_case()), to = there(clone(whole)),
                                                             low = there(random({n, m}, 2, 1, DType::bf16));
    run<MatrixPart::Take>(device_of_case(), part, there(whole), row, column);
    run<MatrixPart::Put>(device_of_case(), to, low, row, column);
    const Tensor taken = on_host(part), put = on_host(to), from = on_host(low);
    for (int64_t i = 0; i < 7; ++i)
      for (int64_t j = 0; j < 5; ++j) {
        const bool inside = i >= row && i < row + n && j >= column && j < column + m;
        const size_t at = size_t((i - row) * m + j - column);
        const float was = whole.data<float>()[size_t(i * 5 + j)];
        if (inside) CHECK(taken.data<float>()[at] == was);
        CHECK(put.data<float>()[size_t(i * 5 + j)] == (inside ? float(from.data<bf16>()[at]) : was));
      }
  }
  const Tensor rounded({3, 2}, DType::bf16, device_of_case()), wide_part = random({3, 2}, 3, 1, DType::f32);
  run<MatrixPart::Put>(device_of_case(), rounded, there(wide_part), 0, 0);
  CHECK(identical(rounded, converted(wide_part, DType::bf16)));
  CHECK(identical(some_rows(there(whole), 2, 3), slice(whole, 2, 5)));
  CHECK(some_rows(there(whole), 7, 0).shape() == Shape{0, 5});
}
