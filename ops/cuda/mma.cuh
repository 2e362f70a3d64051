#pragma once
#include <cstdint>

#include "core/cuda/launch.cuh"
#include "core/dtype.h"

// A warp's tensor-core product of bf16 and what feeds it, in the layouts of the PTX manual ("Matrix Fragments for
// mma.m16n8k16", "ldmatrix", "cp.async"). Each function has a scalar body besides, for the shim: lanes look up each
// other's registers, so that a kernel's fragments and addresses are tested without a GPU.
//
// Lane l is the pair (g, t) = (l / 4, l % 4). Two neighbours in a 32-bit register: the lower index in the lower half.

namespace agon::cuda {

/// A [16, 16] by rows: registers hold (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) and their right neighbours.
struct FragmentA {
  uint32_t r[4];
};
/// B [16, 8]: (2t, g) and the one below it, (2t + 8, g) and the one below it. As rows of Bᵀ: like A.
struct FragmentB {
  uint32_t r[2];
};
/// C [16, 8] f32: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
struct FragmentC {
  float r[4];
};

/// Row and column in C of register i of this lane.
__device__ inline int row_of_c(int lane, int i) { return lane / 4 + i / 2 * 8; }
__device__ inline int column_of_c(int lane, int i) { return lane % 4 * 2 + i % 2; }

/// Two f32 rounded to bf16, `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  return uint32_t(bf16(low).bits) | uint32_t(bf16(high).bits) << 16;
}
__device__ inline float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// c += a b, all lanes of a warp together.
__device__ inline void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
#else
  struct Both {
    FragmentA a;
    FragmentB b;
  };
  const Both mine{a, b};
  const std::byte* const all = shim::exchange(~0u, &mine, sizeof mine);
  const int lane = shim::lane();
  const auto of = [&](int i) -> const Both& { return shim::at_lane<Both>(all, i); };
  for (int i = 0; i < 4; ++i) {
    const int row = row_of_c(lane, i), column = column_of_c(lane, i);
    for (int pair = 0; pair < 8; ++pair) {  // of k
      const uint32_t left = of(row % 8 * 4 + pair % 4).a.r[row / 8 + pair / 4 * 2];
      const uint32_t right = of(column * 4 + pair % 4).b.r[pair / 4];
      c.r[i] += low_bf16(left) * low_bf16(right);
      c.r[i] += high_bf16(left) * high_bf16(right);
    }
  }
#endif
}

/// Four 8 x 8 matrices of 16-bit numbers from shared memory. Lane l gives the address, a multiple of 16 bytes, of row l
/// % 8 of matrix l / 8; r[i] gets (g, 2t) and its right neighbour of matrix i.
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
#else
  check(reinterpret_cast<uintptr_t>(row) % 16 == 0, "ldmatrix: an address that is no multiple of 16");
  const std::byte* const all = shim::exchange(~0u, &row, sizeof row);
  const int lane = shim::lane();
  for (int i = 0; i < 4; ++i)
    r[i] = static_cast<const uint32_t*>(shim::at_lane<const void*>(all, 8 * i + lane / 4))[lane % 4];
#endif
}

/// The same with each matrix transposed: r[i] gets (2t, g) and the one below it of matrix i.
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
#else
  check(reinterpret_cast<uintptr_t>(row) % 16 == 0, "ldmatrix: an address that is no multiple of 16");
  const std::byte* const all = shim::exchange(~0u, &row, sizeof row);
  const int lane = shim::lane();
  for (int i = 0; i < 4; ++i) {
    uint32_t pair = 0;
    for (int j = 0; j < 2; ++j) {
      const auto* const from =
          static_cast<const uint16_t*>(shim::at_lane<const void*>(all, 8 * i + lane % 4 * 2 + j));
      pair |= uint32_t(from[lane / 4]) << (16 * j);
    }
    r[i] = pair;
  }
#endif
}

/// Starts copying N = 4, 8 or 16 bytes from global to shared memory, of which the first `valid` are read and the rest
/// become 0. Both addresses are multiples of N; `from` is not read where valid is 0, but must be an address.
template <int N>
__device__ void copy_async(void* to, const void* from, int valid = N) {
  static_assert(N == 4 || N == 8 || N == 16);
#ifdef __CUDACC__
  const uint32_t at = uint32_t(__cvta_generic_to_shared(to));
  if constexpr (N == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(N), "r"(valid) : "memory");
#else
  check(reinterpret_cast<uintptr_t>(to) % N == 0 && reinterpret_cast<uintptr_t>(from) % N == 0 && valid >= 0 &&
            valid <= N,
        "cp.async of ", N, " bytes, ", valid, " of them valid, at addresses that are no multiples of it");
  std::memset(to, 0, N);
  if (valid) std::memcpy(to, from, size_t(valid));
#endif
}
/// Closes the group of copies started since the last call.
__device__ inline void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most the `Pending` newest groups of this thread are under way. A barrier must follow before other
/// threads read.
template <int Pending>
__device__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace agon::cuda
