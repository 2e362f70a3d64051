#pragma once
#include "core/cuda/launch.cuh"

// Lists in segments, as Pairs, Plan and grouped_linear have them: offsets [n+1] i32 ascending from 0; a list may be
// longer than offsets[n], what is in use.

namespace agon::cuda {

/// The segment of entry i, which must be in use. Empty segments hold nothing and are passed over.
__device__ inline int64_t segment_of(const int32_t* offsets, int64_t segments, int64_t i) {
  int64_t below = 0, above = segments;  // offsets[below] <= i < offsets[above]
  while (above - below > 1) {
    const int64_t middle = (below + above) / 2;
    (offsets[middle] <= i ? below : above) = middle;
  }
  return below;
}

}  // namespace agon::cuda
