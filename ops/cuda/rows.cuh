#pragma once
#include <limits>

#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"
#include "ops/elementwise.h"

// Kernels that reduce each row of a tensor: a warp takes a row, or a block where rows are long. Which one depends on
// the width alone, so that a row has the same bits among any others.

namespace agon::cuda {

inline constexpr int kRowThreads = 256;

struct Smaller {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

/// The threads of a row: this one is number `rank` of `kThreads`.
struct WarpRow {
  static constexpr int kThreads = 32, kRows = kRowThreads / kThreads;  // rows a block
  int64_t row;
  int rank;
  __device__ WarpRow() : row(int64_t(blockIdx.x) * kRows + threadIdx.x / kThreads), rank(int(threadIdx.x) % kThreads) {}

  /// Every thread of the row gets the whole. All of them must call.
  template <class T, class F>
  __device__ T reduce(T v, T, F join) const {
    return warp_reduce(v, join);
  }
  /// What the threads of the row read before it is not what they write after it.
  __device__ void barrier() const { __syncwarp(); }
};
struct BlockRow {
  static constexpr int kThreads = kRowThreads, kRows = 1;
  int64_t row;
  int rank;
  __device__ BlockRow() : row(blockIdx.x), rank(int(threadIdx.x)) {}

  template <class T, class F>
  __device__ T reduce(T v, T none, F join) const {
    return block_reduce(v, none, join);
  }
  __device__ void barrier() const { __syncthreads(); }
};

/// The sum of term(i) over i < n, by all threads of a row.
template <class Row, class F>
__device__ float row_sum(const Row& r, int64_t n, F term) {
  float sum = 0;
  for (int64_t i = r.rank; i < n; i += Row::kThreads) sum += term(i);
  return r.reduce(sum, 0.f, Plus());
}

/// The largest term(i), -inf at least. A NaN among the terms is passed over.
template <class Row, class F>
__device__ float row_max(const Row& r, int64_t n, F term) {
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t i = r.rank; i < n; i += Row::kThreads) top = Larger()(top, term(i));
  return r.reduce(top, top, Larger());
}

/// What a kernel that reads a row more than once reads: the elements of x,
template <class T>
struct Elements {
  const T* x;
  __device__ float first(int64_t i) const { return float(x[i]); }
  __device__ float again(int64_t i) const { return float(x[i]); }
};
/// or sums, rounded and stored when they are first read. The thread that reads one again must be the one that made it.
template <class T>
struct Sums {
  T* sum;
  const T *a, *b;
  __device__ float first(int64_t i) const {
    const T made = T(Add::Forward()(float(a[i]), float(b[i])));
    sum[i] = made;
    return float(made);
  }
  __device__ float again(int64_t i) const { return float(sum[i]); }
};

/// Calls f.template operator()<Row>() with WarpRow or BlockRow.
template <class F>
void by_row_width(int64_t width, F&& f) {
  if (width <= 1024) return f.template operator()<WarpRow>();
  f.template operator()<BlockRow>();
}

/// Launches a kernel of `rows` rows.
template <class Row, class... Parameters, class... Args>
void launch_rows(const Label& label, void (*kernel)(Parameters...), int64_t rows, Args... args) {
  launch(label, kernel, blocks(rows, Row::kRows), kRowThreads, 0, args...);
}

}  // namespace agon::cuda
