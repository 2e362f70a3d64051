#pragma once
#include "core/cuda/scan.cuh"

// Where each of several lists begins, from how long each is.

namespace agon::cuda {

inline constexpr int kListThreads = 256;

template <class T>
__global__ void offsets_of_counts(T* offsets, const T* counts, int64_t n) {
  scan_counts(offsets, counts, n);
}

/// offsets [n+1] of lists of counts [n] elements.
inline void launch_offsets(const Label& label, const Tensor& offsets, const Tensor& counts) {
  launch(label, offsets_of_counts<int32_t>, 1, kScanThreads, 0, pointer<int32_t>(offsets),
         pointer<const int32_t>(counts), counts.size());
}

}  // namespace agon::cuda
