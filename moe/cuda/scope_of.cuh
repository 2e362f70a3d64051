#pragma once
#include "core/cuda/launch.cuh"

namespace agon::cuda {

/// The scope that token t lies in: offsets [scopes + 1] ascend from 0; scopes may be empty.
__device__ inline int64_t scope_of(const int32_t* offsets, int64_t scopes, int64_t t) {
  int64_t low = 0, high = scopes;  // offsets[low] <= t < offsets[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle] <= t)
      low = middle;
    else
      high = middle;
  }
  return low;
}

}  // namespace agon::cuda
