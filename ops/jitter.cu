#include "ops/jitter.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A thread for each four elements that share a block of random words.
template <class T>
__global__ void jitter_all(T* y, const T* x, double amount, RandomKey key, int64_t first_row, int64_t rows,
                           int64_t width) {
  const int64_t blocks = (width + 3) / 4, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * blocks) return;
  const int64_t row = i / blocks, first = i % blocks * 4;
  const auto words = philox(key, uint64_t(first_row * blocks + i));
  for (int j = 0; j < 4; ++j) {
    const int64_t at = row * width + first + j;
    if (first + j < width) y[at] = T(float(x[at]) * Jitter::Forward::factor<float>(amount, words[size_t(j)]));
  }
}

}  // namespace

void Jitter::Forward::cuda(const Tensor& y, const Tensor& x, double amount, RandomKey key, int64_t first_row) {
  const int64_t T = x.shape(0), D = x.shape(1);
  cuda::visit(x.dtype(), [&]<class S>() {
    cuda::launch({"jitter", x}, jitter_all<S>, cuda::blocks(T * ((D + 3) / 4), kThreads), kThreads, 0,
                 cuda::pointer<S>(y), cuda::pointer<const S>(x), amount, key, first_row, T, D);
  });
}

}  // namespace agon
