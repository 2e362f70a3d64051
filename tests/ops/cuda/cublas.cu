#include "ops/cuda/cublas.h"

#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// What a product should be, by one loop in f64.
Tensor expected_product(const Tensor& a, bool a_transposed, const Tensor& b, bool b_transposed, const Tensor& start,
                        const Tensor& bias) {
  const Tensor left = converted(a, DType::f64), right = converted(b, DType::f64);
  const int64_t m = start.shape(0), n = start.shape(1), k = left.size() / m;
  Tensor c = converted(start, DType::f64);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double& sum = c.data<double>()[size_t(i * n + j)];
      if (bias) sum += converted(bias, DType::f64).data<double>()[size_t(j)];
      for (int64_t l = 0; l < k; ++l)
        sum += left.data<double>()[size_t(a_transposed ? l * m + i : i * k + l)] *
               right.data<double>()[size_t(b_transposed ? j * k + l : l * n + j)];
    }
  return c;
}

}  // namespace

GPU_CASE("cublas: products of every dtype and layout, added or not, with and without bias") {
  struct Types {
    DType in, out;
  };
  struct Size {
    int64_t m, n, k;
  };
  for (const auto [m, n, k] : {Size{33, 17, 29}, {64, 128, 32}, {1, 5, 8}})
    for (const auto [in, out] : {Types{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}})
      for (const int options : {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 15}) {
        const bool left = options & 1, right = options & 2, add = options & 4 && out == DType::f32, with = options & 8;
        const Tensor a = random(left ? Shape{k, m} : Shape{m, k}, 1, 1, in),
                     b = random(right ? Shape{n, k} : Shape{k, n}, 2, 1, in), bias = random({n}, 3, 1, out);
        const Tensor start = random({m, n}, 4, 1, out), c = there(clone(start)), there_a = there(a), there_b = there(b),
                     there_bias = there(bias);
        if (!add) start.zero();
        cuda::GemmOperand x = cuda::operand(there_a), y = cuda::operand(there_b);
        x.transposed = left;
        y.transposed = right;
        CAPTURE(in);
        CAPTURE(out);
        CAPTURE(options);
        cuda::gemm("test", m, n, k, x, y, cuda::output(c), add, with ? there_bias.address() : nullptr);
        CHECK(relative_error(c, expected_product(a, left, b, right, start, with ? bias : Tensor())) <
              (out == DType::bf16 ? 1e-2 : 1e-6));
      }
}

GPU_CASE("cublas: no depth is a sum of nothing, what does not fit is an error") {
  const Tensor c = there(random({3, 4}, 1, 1, DType::f32)), before = clone(c),
               bias = there(random({4}, 2, 1, DType::f32)), none({3, 0}, DType::f32, device_of_case()),
               half({4, 4}, DType::bf16, device_of_case());
  cuda::gemm("test", 3, 4, 0, cuda::operand(none), cuda::transposed(cuda::operand(none)), cuda::output(c), true);
  CHECK(identical(c, before));
  cuda::gemm("test", 3, 4, 0, cuda::operand(none), cuda::transposed(cuda::operand(none)), cuda::output(c), false,
             bias.address());
  for (int64_t i = 0; i < 12; ++i)
    CHECK(on_host(c).data<float>()[size_t(i)] == on_host(bias).data<float>()[size_t(i % 4)]);
  CHECK_THROWS_WITH_AS(cuda::gemm("router", 3, 4, 4, cuda::operand(c), cuda::operand(half), cuda::output(c)),
                       doctest::Contains("router: a product of f32 and bf16"), Error);
}
