#pragma once
#include <cstdint>

#include "core/parallel.h"
#include "core/tensor.h"

namespace agon::cpu {

/// y[i] += bias for the rows [begin, end) of y [.., n]; bias starts `at` elements into its tensor.
inline void add_bias(const Tensor& y, int64_t begin, int64_t end, const Tensor& bias, int64_t at) {
  visit_float(y.dtype(), [&]<class T>() {
    visit_float(bias.dtype(), [&]<class B>() {
      using A = Accumulator<T>;
      const int64_t n = y.shape(-1);
      T* rows = y.data<T>().data();
      const B* b = bias.data<const B>().data() + at;
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < n; ++j) rows[i * n + j] = T(A(rows[i * n + j]) + A(b[j]));
    });
  });
}

/// sums[at + j] = [sums[at + j] +] the sum over rows i in [begin, end), ascending, of dy[i][j].
inline void sum_rows(const Tensor& sums, int64_t at, bool add, const Tensor& dy, int64_t begin, int64_t end) {
  visit_float(sums.dtype(), [&]<class S>() {
    visit_float(dy.dtype(), [&]<class T>() {
      using A = Accumulator<S>;
      constexpr int64_t kColumns = 64;  // enough to read whole cache lines of a row
      const int64_t n = dy.shape(-1);
      const T* rows = dy.data<const T>().data();
      S* out = sums.data<S>().data() + at;
      parallel_ranges(n, kColumns, [&](int64_t first, int64_t last) {
        A sum[kColumns];
        for (int64_t j = first; j < last; ++j) sum[j - first] = add ? A(out[j]) : A(0);
        for (int64_t i = begin; i < end; ++i)
          for (int64_t j = first; j < last; ++j) sum[j - first] += A(rows[i * n + j]);
        for (int64_t j = first; j < last; ++j) out[j] = S(sum[j - first]);
      });
    });
  });
}

}  // namespace agon::cpu
