#include "ops/swiglu.h"

#include "core/cuda/launch.cuh"
#include "core/cuda/vec.cuh"
#include "ops/cpu/exp.h"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// N neighbours of a row of y [rows, F] from the two halves of a row of x [rows, 2F].
template <class T, int N>
__global__ void forward(T* y, const T* x, int64_t F, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int64_t at = i / F * 2 * F + i % F;
  const auto gate = cuda::load<N>(x + at), up = cuda::load<N>(x + at + F);
  cuda::Vec<T, N> out;
  for (int j = 0; j < N; ++j) {
    const float g = float(gate[j]);
    out[j] = T(g / (1 + cpu::exp(-g)) * float(up[j]));
  }
  cuda::store(y + i, out);
}

/// dx may be x: an element is read before it is written.
template <class T, int N>
__global__ void backward(T* dx, const T* dy, const T* x, int64_t F, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int64_t at = i / F * 2 * F + i % F;
  const auto gate = cuda::load<N>(x + at), up = cuda::load<N>(x + at + F), slope = cuda::load<N>(dy + i);
  cuda::Vec<T, N> dgate, dup;
  for (int j = 0; j < N; ++j) {
    const float g = float(gate[j]), s = 1 / (1 + cpu::exp(-g)), d = float(slope[j]);
    dgate[j] = T(d * float(up[j]) * s * (1 + g * (1 - s)));
    dup[j] = T(d * g * s);
  }
  cuda::store(dx + at, dgate);
  cuda::store(dx + at + F, dup);
}

}  // namespace

void Swiglu::Forward::cuda(const Tensor& y, const Tensor& x) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::by_width<T>(y.shape(-1), [&]<int N>() {
      cuda::launch({"swiglu", x}, forward<T, N>, cuda::blocks(y.size(), kThreads * N), kThreads, 0,
                   cuda::pointer<T>(y), cuda::pointer<const T>(x), y.shape(-1), y.size());
    });
  });
}

void Swiglu::Backward::cuda(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::by_width<T>(dy.shape(-1), [&]<int N>() {
      cuda::launch({"swiglu backward", x}, backward<T, N>, cuda::blocks(dy.size(), kThreads * N), kThreads, 0,
                   cuda::pointer<T>(dx), cuda::pointer<const T>(dy), cuda::pointer<const T>(x), dy.shape(-1),
                   dy.size());
    });
  });
}

}  // namespace agon
