#pragma once
#include "core/cuda/reduce.cuh"
#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/mma.cuh"

// What the attention kernels on tensor cores are made of: bf16 heads D wide, 4 warps a block, a warp 16 rows of a tile.

/// Before a loop whose body nvcc finds too long to unroll by itself: fragments indexed in it would leave the registers.
#ifdef __CUDACC__
#define AGON_UNROLL _Pragma("unroll")
#else
#define AGON_UNROLL
#endif

namespace agon::cuda::tensor_core {

inline constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = kAttentionTile / kWarps;
/// Rows of a tile in shared memory lie 16 bytes further apart than they are long, so that the 8 rows that ldmatrix
/// reads together are in different banks.
template <int D>
inline constexpr int kStep = D + 8;
template <int D>
inline constexpr int kTile = kAttentionTile* kStep<D>;

__device__ inline int lane() { return int(threadIdx.x) % 32; }
__device__ inline int warp() { return int(threadIdx.x) / 32; }

/// Starts copying a tile into shared memory; rows that do not exist become 0.
template <int D>
__device__ void start_copy(bf16* to, const TileRows<const bf16>& from) {
  constexpr int kPieces = D / 8;  // of 16 bytes
  for (int i = int(threadIdx.x); i < kAttentionTile * kPieces; i += kThreads) {
    const int row = i / kPieces, column = i % kPieces * 8;
    const bool has = from.has(row);
    copy_async<16>(to + row * kStep<D> + column, has ? from[row] + column : from.tensor, has ? 16 : 0);
  }
}

/// A [16, 16]: the tile from (row, column) on.
template <int D>
__device__ FragmentA load_a(const bf16* tile, int row, int column) {
  FragmentA a;
  load_matrices(a.r, tile + (row + lane() % 16) * kStep<D> + column + lane() / 16 * 8);
  return a;
}

/// B [16, 16] as two of [16, 8]: the transpose of the tile from (row, column) on.
template <int D>
__device__ void load_transposed(FragmentB (&b)[2], const bf16* tile, int row, int column) {
  uint32_t r[4];
  load_matrices(r, tile + (row + lane() % 8 + lane() / 16 * 8) * kStep<D> + column + lane() / 8 % 2 * 8);
  b[0] = {r[0], r[1]};
  b[1] = {r[2], r[3]};
}

/// B [16, 16] as two of [16, 8]: the tile from (row, column) on.
template <int D>
__device__ void load_b(FragmentB (&b)[2], const bf16* tile, int row, int column) {
  uint32_t r[4];
  load_matrices_transposed(r, tile + (row + lane() % 16) * kStep<D> + column + lane() / 16 * 8);
  b[0] = {r[0], r[1]};
  b[1] = {r[2], r[3]};
}

/// c = a bᵀ [16, 8 N] for the 16 rows of a from `a_row` on and the 8 N rows of b from `b_row` on, of which only the
/// first 16 `count` are wanted; the others give 0.
template <int D, int N>
__device__ void multiply(FragmentC (&c)[N], const bf16* a, int a_row, const bf16* b, int b_row, int count = N / 2) {
  for (FragmentC& part : c) part = {};
  for (int k = 0; k < D; k += 16) {
    const FragmentA left = load_a<D>(a, a_row, k);
    for (int n = 0; n < N / 2; ++n) {
      if (n >= count) continue;
      FragmentB right[2];
      load_transposed<D>(right, b, b_row + 16 * n, k);
      mma(c[2 * n], left, right[0]);
      mma(c[2 * n + 1], left, right[1]);
    }
  }
}

/// Sums as weights of the next product, columns 16 n of them on.
template <int N>
__device__ FragmentA as_weights(const FragmentC (&c)[N], int n) {
  const FragmentC &left = c[2 * n], &right = c[2 * n + 1];
  return {pack_bf16(left.r[0], left.r[1]), pack_bf16(left.r[2], left.r[3]), pack_bf16(right.r[0], right.r[1]),
          pack_bf16(right.r[2], right.r[3])};
}

/// c [16, D] += weights [16, 16] times the 16 rows of the tile from `row` on.
template <int D>
__device__ void add(FragmentC (&c)[D / 8], const FragmentA& weights, const bf16* tile, int row) {
  for (int n = 0; n < D / 16; ++n) {
    FragmentB right[2];
    load_b<D>(right, tile, row, 16 * n);
    mma(c[2 * n], weights, right[0]);
    mma(c[2 * n + 1], weights, right[1]);
  }
}

__device__ inline bool low_is_finite(uint32_t pair) { return (pair & 0x7f80u) != 0x7f80u; }
__device__ inline bool high_is_finite(uint32_t pair) { return (pair & 0x7f800000u) != 0x7f800000u; }

/// The same on the diagonal, where row i sees only the first i + 1 of the rows of the tile. A weight of 0 does not keep
/// an infinity out of a sum: tensor cores get 0 for what is not finite, and those who see it get it after.
template <int D>
__device__ void add_diagonal(FragmentC (&c)[D / 8], const FragmentA& weights, const bf16* tile, int row) {
  bool finite = true;
  for (int n = 0; n < D / 16; ++n) {
    FragmentB right[2];
    load_b<D>(right, tile, row, 16 * n);
    for (FragmentB& part : right)
      for (uint32_t& pair : part.r) {
        if (!low_is_finite(pair)) finite = false, pair &= 0xffff0000u;
        if (!high_is_finite(pair)) finite = false, pair &= 0x0000ffffu;
      }
    mma(c[2 * n], weights, right[0]);
    mma(c[2 * n + 1], weights, right[1]);
  }
  if (__all_sync(kAllLanes, finite)) return;
  for (int key = 0; key < 16; ++key) {
    const int holder = lane() / 4 * 4 + key % 8 / 2, row_above = lane() / 4;
    const uint32_t above = __shfl_sync(kAllLanes, key < 8 ? weights.r[0] : weights.r[2], holder),
                   below = __shfl_sync(kAllLanes, key < 8 ? weights.r[1] : weights.r[3], holder);
    const float weight[2] = {key % 2 ? high_bf16(above) : low_bf16(above),
                             key % 2 ? high_bf16(below) : low_bf16(below)};
    const bool sees[2] = {key <= row_above, key <= row_above + 8};
    for (int n = 0; n < D / 8; ++n) {
      const auto value = load<2>(tile + (row + key) * kStep<D> + 8 * n + lane() % 4 * 2);
      for (int i = 0; i < 4; ++i)
        if (const float v = float(value[i % 2]); sees[i / 2] && !(fabsf(v) < INFINITY)) c[n].r[i] += weight[i / 2] * v;
    }
  }
}

/// Writes c times a factor for each of this lane's two rows to the rows from `first` on.
template <int D>
__device__ void store_rows(const TileRows<bf16>& to, int first, const FragmentC (&c)[D / 8], float above, float below) {
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane() / 4 + 8 * half;
    const float factor = half == 0 ? above : below;
    if (!to.has(row)) continue;
    for (int n = 0; n < D / 8; ++n)
      store(to[row] + 8 * n + lane() % 4 * 2,
            Vec<bf16, 2>{{bf16(c[n].r[2 * half] * factor), bf16(c[n].r[2 * half + 1] * factor)}});
  }
}

}  // namespace agon::cuda::tensor_core
