#include "distributed/sum.h"

#include <doctest/doctest.h>

#include <vector>

#include "core/copy.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("sum: adds in order, bf16 in f32 and rounded once, i32 without overflow in between") {
  // In f32, (1e8 + 1) - 1e8 is 0 and 1e8 - 1e8 + 1 is 1.
  const Tensor big = tensor_of<float>({1e8f}), one = tensor_of<float>({1}), minus = tensor_of<float>({-1e8f}),
               sum({1}, DType::f32);
  void* const to = const_cast<void*>(sum.address());
  sum_in_order(DType::f32, 1, std::vector<const void*>{big.address(), one.address(), minus.address()}, {&to, 1});
  CHECK(sum.data<float>()[0] == 0);
  sum_in_order(DType::f32, 1, std::vector<const void*>{big.address(), minus.address(), one.address()}, {&to, 1});
  CHECK(sum.data<float>()[0] == 1);

  const bf16 halves[] = {bf16(256.f), bf16(1.f), bf16(1.f)};  // 257 is no bf16, 258 is
  bf16 whole;
  void* const to_bf16 = &whole;
  sum_in_order(DType::bf16, 1, std::vector<const void*>{halves, halves + 1, halves + 2}, {&to_bf16, 1});
  CHECK(float(whole) == 258);

  const int32_t numbers[] = {2147483647, 1, -1};
  int32_t total = 0;
  void* const to_i32 = &total;
  sum_in_order(DType::i32, 1, std::vector<const void*>{numbers, numbers + 1, numbers + 2}, {&to_i32, 1});
  CHECK(total == 2147483647);
}

TEST_CASE("sum: of any length, into several places, which may be those that are added") {
  for (int64_t n : {0, 1, 256, 257, 1000}) {
    std::vector<double> a(size_t(n), 1.5), b(size_t(n), 2);
    for (size_t i = 0; i < a.size(); ++i) a[i] += double(i);
    sum_in_order(DType::f64, n, std::vector<const void*>{a.data(), b.data()}, std::vector<void*>{a.data(), b.data()});
    for (size_t i = 0; i < a.size(); ++i) CHECK(a[i] == double(i) + 3.5);
    CHECK(a == b);
  }
}
