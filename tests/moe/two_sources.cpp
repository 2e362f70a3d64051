#include "moe/two_sources.h"

#include <doctest/doctest.h>

#include "tests/moe/support.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int32_t kNone = TwoSources::kNone;

/// Element d of the row that n names, as a double; rows of `width`.
double element(const Tensor& first, const Tensor& second, int32_t n, int64_t width, int64_t d) {
  if (n == kNone) return 0;
  const Tensor rows = converted(n >= 0 ? first : second, DType::f64);
  return rows.data<double>()[size_t((n >= 0 ? n : ~n) * width + d)];
}

std::vector<DType> dtypes_of_case() {
  if (device_of_case().kind == Device::cpu) return {DType::f32, DType::bf16, DType::f64};
  return {DType::f32, DType::bf16};
}

}  // namespace

DEVICE_CASE("two_sources: rows of both, none, and numbers of pairs") {
  const std::vector<int32_t> index{2, ~0, kNone, 0, ~1, ~1, 2};
  for (const DType dtype : dtypes_of_case())
    for (const int64_t width : {1, 7, 8, 40}) {
      CAPTURE(width);
      const Tensor first = random({3, width}, 1, 1, dtype), second = random({2, width}, 2, 1, dtype);
      const Tensor y({int64_t(index.size()), width}, dtype, device_of_case());
      run<TwoSources::Gather>(device_of_case(), y, there(first), there(second), there(tensor_of(index)));
      const Tensor found = converted(on_host(y), DType::f64);
      for (size_t n = 0; n < index.size(); ++n)
        for (int64_t d = 0; d < width; ++d)
          CHECK(found.data<double>()[n * size_t(width) + size_t(d)] == element(first, second, index[n], width, d));
    }
  const Tensor weight = random({4}, 3, 1, DType::f32), y({3}, DType::f32, device_of_case());
  run<TwoSources::Gather>(device_of_case(), y, Tensor(), there(weight), there(tensor_of<int32_t>({~3, kNone, ~0})));
  const Tensor found = on_host(y);
  CHECK(found.data<float>()[0] == weight.data<float>()[3]);
  CHECK(found.data<float>()[1] == 0);
  CHECK(found.data<float>()[2] == weight.data<float>()[0]);
}

DEVICE_CASE("two_sources: sums of rows in order, in f32 and rounded once, and a row alone with its bits") {
  const std::vector<int32_t> index{1, ~0, 0, ~1, kNone, kNone, ~1, 0, ~0, 1}, offsets{0, 3, 3, 5, 6, 7, 10};
  for (const DType dtype : dtypes_of_case())
    for (const int64_t width : {1, 7, 8, 40}) {
      CAPTURE(width);
      const Tensor first = random({2, width}, 1, 1, dtype), second = random({2, width}, 2, 1, dtype);
      fill(second, -0.0);
      if (width > 1) copy(second, random({2, width}, 2, 1, dtype));
      const Tensor y({int64_t(offsets.size()) - 1, width}, dtype, device_of_case());
      run<TwoSources::Sum>(device_of_case(), y, there(first), there(second), there(tensor_of(index)),
                           there(tensor_of(offsets)));
      const Tensor found = converted(on_host(y), DType::f64);
      for (size_t t = 0; t + 1 < offsets.size(); ++t)
        for (int64_t d = 0; d < width; ++d) {
          const double sum = visit_float(dtype, [&]<class T>() {
            Accumulator<T> total = 0;
            for (auto i = size_t(offsets[t]); i < size_t(offsets[t + 1]); ++i)
              total += Accumulator<T>(element(first, second, index[i], width, d));
            return double(T(total));
          });
          CHECK(found.data<double>()[t * size_t(width) + size_t(d)] == sum);
        }
      if (width == 1) CHECK(std::signbit(found.data<double>()[4]));  // -0, not 0 + -0
    }
}
