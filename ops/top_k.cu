#include "ops/top_k.h"

#include <cmath>

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A thread counts who in the row comes before its element: that is the element's place. For as many columns as there
/// are experts; neighbouring threads read the same scores.
__global__ void places(int32_t* index, const float* scores, int64_t k, int64_t width, int64_t size) {
  const int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n >= size) return;
  const int64_t row = n / width, mine = n % width;
  const float* const score = scores + row * width;
  const float value = score[mine];
  const bool none = std::isnan(value);
  int64_t place = 0;
  for (int64_t e = 0; e < width; ++e) {
    const float other = score[e];
    const bool beats = other > value || (none && !std::isnan(other));
    const bool ties = other == value || (none && std::isnan(other));
    place += beats || (ties && e < mine);
  }
  if (place < k) index[row * k + place] = int32_t(mine);
}

}  // namespace

void TopK::Forward::cuda(const Tensor& index, const Tensor& scores) {
  cuda::launch({"top_k", scores}, places, cuda::blocks(scores.size(), kThreads), kThreads, 0,
               cuda::pointer<int32_t>(index), cuda::pointer<const float>(scores), index.shape(1), scores.shape(1),
               scores.size());
}

}  // namespace agon
