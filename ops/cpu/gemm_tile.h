#pragma once
#include "ops/cpu/gemm_kernels.h"

// The register tile, for files compiled for one instruction set each: everything here is local to the including file.
// V names a vector register: Number, Register, kNumbers and the operations below.
namespace agon::cpu {
namespace {

template <class V, int R, int N>
void tile(const GemmTile<typename V::Number>& t) {
  using Number = typename V::Number;
  typename V::Register sum[R][N];
  const bool whole = t.columns == N * V::kNumbers;
  const int64_t last = t.columns - (N - 1) * V::kNumbers;  // columns in the last register
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    const Number* c = t.c + i * t.c_stride;
    __builtin_prefetch(c + R * t.c_stride, 1);  // the tile below is next
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) {
      if (!t.add)
        sum[i][v] = V::zero();
      else if (whole || v < N - 1)
        sum[i][v] = V::load(c + v * V::kNumbers);
      else
        sum[i][v] = V::load_some(c + v * V::kNumbers, last);
    }
  }
  const Number* a = t.a;
  const Number* b = t.b;
  for (int64_t l = 0; l < t.k; ++l, a += R, b += t.b_stride) {
    typename V::Register right[N];
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) right[v] = V::load(b + v * V::kNumbers);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const typename V::Register left = V::all(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v) sum[i][v] = V::fma(left, right[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    Number* c = t.c + i * t.c_stride;
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) {
      if (whole || v < N - 1)
        V::store(c + v * V::kNumbers, sum[i][v]);
      else
        V::store_some(c + v * V::kNumbers, sum[i][v], last);
    }
  }
}

/// The tile for t.rows, at most R, and t.vectors.
template <class V, int R>
void any_tile(const GemmTile<typename V::Number>& t) {
  if (t.rows == R) return t.vectors == 1 ? tile<V, R, 1>(t) : tile<V, R, 2>(t);
  if constexpr (R > 1) any_tile<V, R - 1>(t);
}

/// GemmPack, number by number.
template <class T, class From, class Convert>
void pack_plainly(T* to, int64_t width, int64_t lanes, int64_t k, const From* from, int64_t lane_stride,
                  int64_t k_stride, Convert convert) {
  for (int64_t l = 0; l < k; ++l, to += width, from += k_stride) {
    for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = convert(from[lane * lane_stride]);
    for (int64_t lane = lanes; lane < width; ++lane) to[lane] = T(0);
  }
}

}  // namespace
}  // namespace agon::cpu
