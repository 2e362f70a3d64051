#include "ops/dropout.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A thread takes the four neighbours of a row that one block of Philox decides on.
template <class T>
__global__ void drop(T* y, const T* x, double probability, float factor, RandomKey key, int64_t first_row,
                     int64_t width, int64_t rows) {
  const int64_t quads = (width + 3) / 4, n = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = n / quads;
  if (row >= rows) return;
  const int64_t quad = n % quads;
  const auto words = philox(key.with(uint64_t(first_row + row)), uint64_t(quad));
  for (int j = 0; j < 4 && quad * 4 + j < width; ++j) {
    const int64_t at = row * width + quad * 4 + j;
    y[at] = T(double(uniform(words[size_t(j)])) >= probability ? float(x[at]) * factor : 0.f);
  }
}

}  // namespace

void Dropout::Forward::cuda(const Tensor& y, const Tensor& x, double probability, RandomKey key, int64_t first_row) {
  const int64_t width = x.shape(-1), rows = x.shape().rows();
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::launch({"dropout", x}, drop<T>, cuda::blocks(rows * ((width + 3) / 4), kThreads), kThreads, 0,
                 cuda::pointer<T>(y), cuda::pointer<const T>(x), probability, float(1 / (1 - probability)), key,
                 first_row, width, rows);
  });
}

}  // namespace agon
