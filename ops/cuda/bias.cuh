#pragma once
#include "core/cuda/launch.cuh"
#include "ops/cuda/cublas.h"

// A bias for every row and its gradient, the sums of columns.

namespace agon::cuda {

/// Numbers of f32 or bf16 that a kernel reads one by one; none: no tensor.
struct Numbers {
  const void* data = nullptr;
  bool halves = false;  // bf16

  Numbers() = default;
  Numbers(const void* at, DType dtype) : data(at), halves(dtype == DType::bf16) {
    check(!at || halves || dtype == DType::f32, "a GPU computes in f32 and bf16, got a bias of ", dtype);
  }
  Numbers(const Tensor& t) : Numbers(t ? t.address() : nullptr, t.dtype()) {}
  __device__ float operator[](int64_t i) const {
    return halves ? float(static_cast<const bf16*>(data)[i]) : static_cast<const float*>(data)[i];
  }
};

inline constexpr int kBiasThreads = 256;

template <class T>
__global__ void add_bias(T* y, int64_t stride, int64_t n, int64_t size, Numbers bias) {
  const int64_t i = int64_t(blockIdx.x) * kBiasThreads + threadIdx.x;
  if (i >= size) return;
  T& at = y[i / n * stride + i % n];
  at = T(float(at) + bias[i % n]);
}

/// y [m, n] += bias [n] in every row.
inline void add_bias(const char* op, int64_t m, int64_t n, const GemmOutput& y, const Numbers& bias) {
  visit(y.dtype, [&]<class T>() {
    launch(op, add_bias<T>, blocks(m * n, kBiasThreads), kBiasThreads, 0, static_cast<T*>(y.data), y.stride, n, m * n,
           bias);
  });
}

inline constexpr int kSumColumns = 32, kSumRows = 32;

/// A block: 32 columns of one group, 32 rows at a time. Column j of group e is summed by thread y over the rows y, y +
/// 32, ... of the group, and then over y in order.
template <class S, class T>
__global__ void sum_rows(S* sums, bool add, const T* dy, int64_t rows, int64_t n, const int32_t* offsets) {
  __shared__ float partial[kSumRows][kSumColumns];
  const int64_t j = int64_t(blockIdx.x) * kSumColumns + threadIdx.x, group = blockIdx.y;
  const int64_t begin = offsets ? offsets[group] : 0, end = offsets ? offsets[group + 1] : rows;
  float sum = 0;
  if (j < n)
    for (int64_t i = begin + threadIdx.y; i < end; i += kSumRows) sum += float(dy[i * n + j]);
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || j >= n) return;
  S& out = sums[group * n + j];
  sum = add ? float(out) : 0.0f;
  for (int i = 0; i < kSumRows; ++i) sum += partial[i][threadIdx.x];
  out = S(sum);
}

/// sums [groups, n] = [sums +] for each group the sum of its rows [offsets[e], offsets[e + 1]) of dy [.., n]; without
/// offsets one group has all rows.
inline void sum_rows(const char* op, const Tensor& sums, bool add, const Tensor& dy, const Tensor& offsets = {}) {
  const int64_t n = sums.shape(-1), groups = offsets ? offsets.size() - 1 : 1;
  visit(sums.dtype(), [&]<class S>() {
    visit(dy.dtype(), [&]<class T>() {
      launch({op, sums, dy}, sum_rows<S, T>, dim3(blocks(n, kSumColumns), unsigned(groups)),
             dim3(kSumColumns, kSumRows), 0, pointer<S>(sums), add, pointer<const T>(dy), dy.shape().rows(), n,
             pointer<const int32_t>(offsets));
    });
  });
}

}  // namespace agon::cuda
