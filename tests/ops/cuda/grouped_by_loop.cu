#include "ops/cuda/grouped_by_loop.h"

#include "core/cuda/launch.cuh"
#include "ops/grouped_linear.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Widths {
  int64_t in, out;
};

Tensor filled_with(Shape shape, DType dtype, double value) {
  const Tensor t(shape, dtype, device_of_case());
  fill(t, value);
  return t;
}

}  // namespace

GPU_CASE("grouped_linear: the kernel and a loop of products agree where sizes pass a tile in every direction") {
  // Rows 150 and 300: two tiles and three; depth 200: more stages than are under way at once.
  const Tensor offsets = there(tensor_of<int32_t>({0, 150, 150, 151, 451}));
  constexpr int64_t kGroups = 4, kRows = 600;
  for (const auto [in, out] : {Widths{200, 136}, {129, 141}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(in);
      CAPTURE(dtype);
      const double tolerance = dtype == DType::bf16 ? 5e-3 : 1e-6;
      const Tensor rows = there(random({kRows, in}, 1, 1, dtype)), w = there(random({kGroups, out, in}, 2, 1, dtype)),
                   bias = there(random({kGroups, out}, 3, 1, dtype)), dy = there(random({kRows, out}, 4, 1, dtype));
      const Tensor y = filled_with({kRows, out}, dtype, 7), y_of_loop = filled_with({kRows, out}, dtype, 8);
      GroupedLinear::Forward::cuda(y, rows, w, offsets, bias);
      GroupedByLoop::forward(y_of_loop, rows, w, offsets, bias);
      CHECK(relative_error(y, y_of_loop) < tolerance);
      const Tensor drows = filled_with({kRows, in}, dtype, 7), drows_of_loop = filled_with({kRows, in}, dtype, 8);
      GroupedLinear::Input::cuda(drows, dy, w, offsets);
      GroupedByLoop::input(drows_of_loop, dy, w, offsets);
      CHECK(relative_error(drows, drows_of_loop) < tolerance);
      for (const bool add : {false, true}) {
        const Tensor dw = filled_with({kGroups, out, in}, DType::f32, 7),
                     dw_of_loop = filled_with({kGroups, out, in}, DType::f32, 7);
        GroupedLinear::Weight::cuda(dw, add, dy, rows, offsets);
        GroupedByLoop::weight(dw_of_loop, add, dy, rows, offsets);
        CHECK(relative_error(dw, dw_of_loop) < 1e-6);
      }
    }
}
