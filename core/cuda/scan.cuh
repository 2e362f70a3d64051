#pragma once
#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"

// Prefix sums of counts, in integers: exact, so their order does not matter.

namespace agon::cuda {

inline constexpr int kScanThreads = 1024;

/// The sum of v over the threads before this one in a block of blockDim.x threads, a multiple of 32; *total gets the
/// sum of all. A barrier at both ends.
__device__ inline int block_exclusive_sum(int v, int* total) {
  __shared__ int of_warp[32];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  int sum = v;  // inclusive, within the warp
  for (int delta = 1; delta < 32; delta *= 2) {
    const int before = __shfl_up_sync(kAllLanes, sum, unsigned(delta));
    if (lane >= delta) sum += before;
  }
  __syncthreads();  // whoever read the last result has
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  int earlier = 0, all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) earlier += of_warp[w];
    all += of_warp[w];
  }
  *total = all;
  return earlier + sum - v;
}

/// For one block of kScanThreads threads: offsets[0] = 0, offsets[i + 1] = counts[0] + ... + counts[i].
__device__ inline void scan_counts(int32_t* offsets, const int32_t* counts, int64_t n) {
  int before = 0;
  if (threadIdx.x == 0) offsets[0] = 0;
  for (int64_t first = 0; first < n; first += kScanThreads) {
    const int64_t i = first + threadIdx.x;
    const int v = i < n ? counts[i] : 0;
    int total = 0;
    const int sum = block_exclusive_sum(v, &total);
    if (i < n) offsets[i + 1] = before + sum + v;
    before += total;
  }
}

}  // namespace agon::cuda
