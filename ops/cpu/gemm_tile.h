#pragma once
#include "ops/cpu/gemm_kernels.h"

// The register tile, for files compiled for one instruction set each: everything here is local to the including file.
// V names a vector register: Packed (elements of A and B), Number (of C), their registers Operand and Sum, kNumbers and
// the operations below.
namespace agon::cpu {
namespace {

constexpr int64_t kStrip = 8;  // steps of k between two looks ahead

/// Spreads a GemmAhead over a tile's loop: all at once would fill the processor's queue of misses and stop the tile.
class Ahead {
 public:
  Ahead(const GemmAhead& what, int64_t k) : left_(what.end - what.begin), lines_(what.lines), stride_(what.stride) {
    if (left_ <= 0) return;
    const int64_t strips = (k + kStrip - 1) / kStrip;
    each_ = strips > 0 ? (left_ + strips - 1) / strips : 0;
    run_ = what.first + what.begin / lines_ * stride_;
    line_ = what.begin % lines_;
  }
  void fetch() {
    for (int64_t i = 0; i < each_ && left_ > 0; ++i, --left_) {
      __builtin_prefetch(run_ + 64 * line_, 0, 2);
      if (++line_ == lines_) line_ = 0, run_ += stride_;
    }
  }

 private:
  int64_t left_, lines_, stride_, each_ = 0, line_ = 0;
  const char* run_ = nullptr;
};

template <class V, int R, int N>
void tile(const GemmTile<typename V::Packed>& t) {
  using Number = typename V::Number;
  typename V::Sum sum[R][N];
  const bool whole = t.columns == N * V::kNumbers;
  const int64_t last = t.columns - (N - 1) * V::kNumbers;  // columns in the last register
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    Number* c = t.c + i * t.c_stride;
    __builtin_prefetch(c, 1);  // it is written after the loop over k
    __builtin_prefetch(c + t.columns - 1, 1);
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) {
      if (!t.add)
        sum[i][v] = V::zero();
      else if (whole || v < N - 1)
        sum[i][v] = V::load_sum(c + v * V::kNumbers);
      else
        sum[i][v] = V::load_some(c + v * V::kNumbers, last);
    }
  }
  const typename V::Packed* a = t.a;
  const typename V::Packed* b = t.b;
  Ahead ahead(t.ahead, t.k);
  for (int64_t l = 0; l < t.k;) {
    ahead.fetch();
    for (const int64_t end = l + kStrip < t.k ? l + kStrip : t.k; l < end; ++l, a += R, b += t.b_stride) {
      typename V::Operand right[N];
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v) right[v] = V::load(b + v * V::kNumbers);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const typename V::Operand left = V::all(a[i]);
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) sum[i][v] = V::fma(left, right[v], sum[i][v]);
      }
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
void any_tile(const GemmTile<typename V::Packed>& t) {
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
