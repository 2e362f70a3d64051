#pragma once
#include <cstdint>

#include "core/cuda/launch.cuh"
#include "core/cuda/scan.cuh"

// The n largest of many numbers by radix selection, a block for each choice: digits of eight bits, the highest first.
// Integers are counted, so the result does not depend on the order of threads.

namespace agon::cuda {

/// An integer of the same order as v, never 0: NaN below everything, -0 equal to 0.
__device__ inline uint32_t ordered(float v) {
  if (v != v) return 1;
  const uint32_t bits = v == 0 ? 0 : __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_ordered(uint32_t key) {
  return key == 1 ? __uint_as_float(0x7fffffffu) : __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/// The smallest of the largest keys.
struct Smallest {
  uint32_t key;    // 0: there are fewer
  uint32_t taken;  // how many of the largest are equal to it
  uint32_t equal;  // how many there are
};

/// Of key(0) ... key(n - 1), where 0 means that there is none, the `wanted` largest. For a whole block of a multiple of
/// 32 threads, at least 256, all with the same arguments.
template <class Key>
__device__ Smallest smallest_of_largest(uint32_t n, uint32_t wanted, const Key& key) {
  __shared__ uint32_t histogram[256];
  __shared__ Smallest found;
  if (wanted == 0) return {~0u, 0, 0};
  uint32_t prefix = 0, missing = wanted, equal = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();  // whoever read the last histogram has
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
      const uint32_t k = key(i);
      if (k != 0 && (shift == 24 || k >> (shift + 8) == prefix)) atomicAdd(&histogram[k >> shift & 255], 1u);
    }
    __syncthreads();
    int total = 0;
    const int here = threadIdx.x < 256 ? int(histogram[255 - threadIdx.x]) : 0;
    const int larger = block_exclusive_sum(here, &total);
    if (shift == 24 && missing > uint32_t(total)) return {0, 0, 0};
    if (uint32_t(larger) < missing && missing <= uint32_t(larger + here))
      found = {prefix << 8 | (255 - threadIdx.x), missing - uint32_t(larger), uint32_t(here)};
    __syncthreads();
    prefix = found.key;
    missing = found.taken;
    equal = found.equal;
  }
  return {prefix, missing, equal};
}

/// Calls take(i, whether i is among the `wanted` largest) for each i that has a key; of equal ones the lower i is
/// taken.
template <class Key, class Take>
__device__ void take_largest(uint32_t n, uint32_t wanted, const Key& key, const Take& take) {
  const Smallest smallest = smallest_of_largest(n, wanted, key);
  uint32_t last = ~0u;  // of those equal to the smallest, the last that is taken
  if (smallest.taken < smallest.equal) {
    const auto earlier = [&](uint32_t i) { return key(i) == smallest.key ? ~i : 0u; };
    last = ~smallest_of_largest(n, smallest.taken, earlier).key;
  }
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
    const uint32_t k = key(i);
    if (k != 0) take(i, k > smallest.key || (k == smallest.key && i <= last));
  }
}

/// Threads of the blocks for `choices` choices among `candidates` numbers together.
inline unsigned threads_to_select(int64_t candidates, int64_t choices) {
  return candidates / (choices > 0 ? choices : 1) >= 4096 ? 1024 : 256;
}

}  // namespace agon::cuda
