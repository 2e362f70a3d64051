#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "ops/cpu/gemm.h"

namespace agon::cpu {

namespace {

template <class S, class T>
T load(const ConstMatrix& m, int64_t i, int64_t j) { return T(static_cast<const S*>(m.data)[i * m.row_stride + j * m.column_stride]); }

template <class T, class A, class B, class C>
void naive(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      C& out = static_cast<C*>(c.data)[i * c.row_stride + j];
      T s = add ? T(out) : T(0);
      for (int64_t l = 0; l < k; ++l) s = std::fma(load<A, T>(a, i, l), load<B, T>(b, l, j), s);
      out = C(s);
    }
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  if (a.dtype == DType::f64) return naive<double, double, double, double>(m, n, k, a, b, c, add);
  const auto with_c = [&]<class A, class B>() {
    c.dtype == DType::bf16 ? naive<float, A, B, bf16>(m, n, k, a, b, c, add) : naive<float, A, B, float>(m, n, k, a, b, c, add);
  };
  if (a.dtype == DType::bf16) b.dtype == DType::bf16 ? with_c.operator()<bf16, bf16>() : with_c.operator()<bf16, float>();
  else b.dtype == DType::bf16 ? with_c.operator()<float, bf16>() : with_c.operator()<float, float>();
}

void parallel_gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  parallel_ranges(m, 16, [&](int64_t begin, int64_t end) { gemm(end - begin, n, k, a.from(begin, 0), b, c.from(begin, 0), add); });
}

const char* gemm_instruction_set() { return "generic"; }

}  // namespace agon::cpu
