#pragma once
#include "core/cuda/launch.cuh"
#include "ops/cuda/cublas.h"

// A bias for every row.

namespace agon::cuda {

/// Numbers of f32 or bf16 that a kernel reads one by one; none: no tensor.
struct Numbers {
  const void* data = nullptr;
  bool halves = false;  // bf16

  Numbers() = default;
  Numbers(const void* at, DType dtype) : data(at), halves(dtype == DType::bf16) {
    check(!at || halves || dtype == DType::f32, "a GPU computes in f32 and bf16, got a bias of ", dtype);
  }
  Numbers(const Tensor& t) : Numbers(address_there(t), t.dtype()) {}
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

}  // namespace agon::cuda
