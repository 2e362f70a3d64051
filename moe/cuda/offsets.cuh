#pragma once
#include "core/cuda/scan.cuh"

// Lists one after the other, told apart by where each begins: offsets [n+1] i32, as in Pairs, Plan and Scopes.

namespace agon::cuda {

inline constexpr int kListThreads = 256;

template <class T>
__global__ void offsets_of_counts(T* offsets, const T* counts, int64_t n) {
  scan_counts(offsets, counts, n);
}

/// offsets [n+1] of lists of counts [n] elements.
inline void launch_offsets(const Label& label, const Tensor& offsets, const Tensor& counts) {
  launch(label, offsets_of_counts<int32_t>, 1, kScanThreads, 0, pointer<int32_t>(offsets), pointer<const int32_t>(counts),
         counts.size());
}

/// Which of n lists element i is in: empty ones have none.
__device__ inline int64_t list_of(const int32_t* offsets, int64_t n, int64_t i) {
  int64_t low = 0, high = n;  // offsets[low] <= i < offsets[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (offsets[middle] <= i ? low : high) = middle;
  }
  return low;
}

}  // namespace agon::cuda
