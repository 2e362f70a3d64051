#pragma once
#include "core/cuda/launch.cuh"
#include "core/cuda/vec.cuh"
#include "ops/elementwise.h"

// The loops of elementwise ops. A .cu file instantiates Unary<F>::cuda or Binary<F>::cuda for its functors.

namespace agon {

namespace cuda {

inline constexpr int kMapThreads = 256;

/// y[i] = f(x...[i]), 16 bytes of each tensor a thread.
template <class T, class F, class... X>
__global__ void map(T* y, int64_t n, F f, X... x) {
  constexpr int N = kVec<T>;
  const int64_t i = (int64_t(blockIdx.x) * kMapThreads + threadIdx.x) * N;
  if (i + N <= n) {
    Vec<T, N> out;
    for (int j = 0; j < N; ++j) out[j] = T(f(float(load<N>(x + i)[j])...));
    store(y + i, out);
  } else {
    for (int64_t j = i; j < n; ++j) y[j] = T(f(float(x[j])...));
  }
}

template <class T, class F, class... X>
void launch_map(const Label& label, const Tensor& y, const F& f, const X&... x) {
  launch(label, map<T, F, std::conditional_t<true, const T*, X>...>, blocks(y.size(), kMapThreads * kVec<T>),
         kMapThreads, 0, pointer<T>(y), y.size(), f, pointer<const T>(x)...);
}

}  // namespace cuda

template <class F>
void Unary<F>::cuda(const Tensor& y, const Tensor& x, const F& f) {
  cuda::visit(x.dtype(), [&]<class T>() { cuda::launch_map<T>({"elementwise", x}, y, f, x); });
}

template <class F>
void Binary<F>::cuda(const Tensor& y, const Tensor& a, const Tensor& b, const F& f) {
  cuda::visit(a.dtype(), [&]<class T>() { cuda::launch_map<T>({"elementwise", a, b}, y, f, a, b); });
}

}  // namespace agon
