#pragma once
#include <cuda_runtime.h>

// Sums and maxima over the threads of a warp or a block, in a fixed order: the same bits every time.

namespace agon::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

struct Plus {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

/// Every lane gets the whole.
template <class T, class F>
__device__ T warp_reduce(T v, F join) {
  for (int bits = 16; bits > 0; bits /= 2) v = join(v, __shfl_xor_sync(kAllLanes, v, bits));
  return v;
}
template <class T>
__device__ T warp_sum(T v) {
  return warp_reduce(v, Plus());
}
template <class T>
__device__ T warp_max(T v) {
  return warp_reduce(v, Larger());
}

/// Every thread of a block of blockDim.x threads, a multiple of 32, gets the whole. A barrier at both ends: calls may
/// follow each other.
template <class T, class F>
__device__ T block_reduce(T v, T none, F join) {
  __shared__ T of_warp[32];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  v = warp_reduce(v, join);
  __syncthreads();  // whoever read the last result has
  if (lane == 0) of_warp[warp] = v;
  __syncthreads();
  return warp_reduce(lane < warps ? of_warp[lane] : none, join);
}
template <class T>
__device__ T block_sum(T v) {
  return block_reduce(v, T(0), Plus());
}

}  // namespace agon::cuda
