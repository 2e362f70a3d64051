#include "moe/thresholds.h"

#include "moe/cuda/radix_select.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A block for each column.
__global__ void nth_largest(float* at, const float* all, uint32_t rows, int64_t columns, uint32_t n) {
  const int64_t c = blockIdx.x;
  const auto key = [=](uint32_t r) { return cuda::ordered(all[r * columns + c]); };
  const uint32_t nth = cuda::smallest_of_largest(rows, n, key).key;
  if (threadIdx.x == 0) at[c] = cuda::from_ordered(nth);
}

__global__ void moving_average(float* value, const float* now, float decay, float rest, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) value[i] = value[i] != value[i] ? now[i] : decay * value[i] + rest * now[i];
}

}  // namespace

void NthLargest::cuda(const Tensor& at, const Tensor& all, int64_t n) {
  cuda::launch({"cut", all}, nth_largest, unsigned(all.shape(1)), cuda::threads_to_select(all.size(), all.shape(1)), 0,
               cuda::pointer<float>(at), cuda::pointer<const float>(all), uint32_t(all.shape(0)), all.shape(1),
               uint32_t(n));
}

void MovingAverage::cuda(const Tensor& value, const Tensor& now, double decay) {
  cuda::launch({"thresholds", value}, moving_average, cuda::blocks(value.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(value), cuda::pointer<const float>(now), float(decay), float(1 - decay),
               value.size());
}

}  // namespace agon
