#include "ops/cuda/column_sums.cuh"

#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

GPU_CASE("column_sums: any number of rows, written over or added, with a factor, in any order of threads") {
  for (const int64_t rows : {0, 1, 9, 256, 257, 1000, 70000})
    for (const int64_t width : {1, 32, 45}) {
      if (rows > 1000 && width > 1) continue;
      CAPTURE(rows);
      CAPTURE(width);
      const Tensor x = random({rows, width}, 1, 1, DType::f32), on_gpu = there(x);
      std::vector<double> expected(size_t(width), 7);
      for (int64_t i = 0; i < rows * width; ++i)
        expected[size_t(i % width)] -= 0.5 * double(x.data<float>()[size_t(i)]);
      const cuda::Stored<float> term{cuda::pointer<const float>(on_gpu), width};
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Tensor added = there(Tensor({width}, dtype)), over = there(Tensor({width}, dtype));
        const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-2;
        fill(added, 7);
        fill(over, NAN);
        cuda::column_sums("test", added, true, rows, term, -0.5f);
        cuda::column_sums("test", over, false, rows, term, -0.5f);
        Tensor moved = converted(on_host(over), DType::f64);
        for (double& v : moved.data<double>()) v += 7;
        CHECK(relative_error(added, tensor_of(expected)) < tolerance);
        CHECK(relative_error(moved, tensor_of(expected)) < tolerance);
        const Tensor again = there(Tensor({width}, dtype));
        const ThreadOrder changed(2);
        cuda::column_sums("test", again, false, rows, term, -0.5f);
        CHECK(identical(again, over));
      }
    }
}
