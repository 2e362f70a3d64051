#pragma once
#include "ops/cuda/attention_fragments.cuh"

// Attention on tensor cores after FlashAttention-2 (Dao, 2023): a block makes one tile of queries of one head, or one
// tile of keys of one key head, and keeps its sums in registers.

namespace agon::cuda::tensor_core {

/// Whether the query of register i of C, part n, sees its key, where both are rows of one tile (the diagonal).
__device__ inline bool sees_on_diagonal(int n, int i) {
  return 8 * n + column_of_c(lane(), i) <= kRows * warp() + row_of_c(lane(), i);
}

template <int D>
inline constexpr size_t kForwardShared = 3 * kTile<D> * sizeof(bf16);

template <int D>
__global__ void __launch_bounds__(kThreads)
    forward(bf16* y, float* logsumexp, const bf16* q, const bf16* k, const bf16* v, AttentionShape s) {
  constexpr int N = kAttentionTile / 8;
  bf16 *const queries = dynamic_shared<bf16>(), *const keys = queries + kTile<D>, *const values = keys + kTile<D>;
  AttentionTile tile;
  if (!find_query_tile(tile, s)) return;
  const int head = int(blockIdx.y), key_head = head / s.group(), first_row = kRows * warp();
  start_copy<D>(queries, tile.queries(q, s, head));
  start_copy<D>(keys, tile.at(0).key_rows(k, s, key_head));
  commit_copies();
  FragmentC answer[D / 8] = {};
  // Of rows lane / 4 and 8 further; the sum is over this lane's columns.
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int index = 0; index <= tile.index; ++index) {
    const bool diagonal = index == tile.index;
    start_copy<D>(values, tile.at(index).key_rows(v, s, key_head));
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    FragmentC weights[N];
    multiply<D>(weights, queries, first_row, keys, 0, diagonal ? warp() + 1 : N / 2);
    float highest[2] = {top[0], top[1]};
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < 4; ++i) {
        float& score = weights[n].r[i];
        score = diagonal && !sees_on_diagonal(n, i) ? -INFINITY : score * (s.scale * kLog2E);
        highest[i / 2] = Larger()(highest[i / 2], score);
      }
    for (int half = 0; half < 2; ++half) {
      for (int bits = 1; bits < 4; bits *= 2)
        highest[half] = Larger()(highest[half], __shfl_xor_sync(kAllLanes, highest[half], bits));
      const float shrink = exp2f(top[half] - highest[half]);
      sum[half] *= shrink;
      for (FragmentC& part : answer) part.r[2 * half] *= shrink, part.r[2 * half + 1] *= shrink;
      top[half] = highest[half];
    }
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < 4; ++i) {
        float& weight = weights[n].r[i];
        weight = diagonal && !sees_on_diagonal(n, i) ? 0 : exp2f(weight - top[i / 2]);
        sum[i / 2] += weight;
      }
    wait_for_copies<0>();
    __syncthreads();  // the values have arrived, and nobody reads the keys any more
    if (!diagonal) {
      start_copy<D>(keys, tile.at(index + 1).key_rows(k, s, key_head));
      commit_copies();
    }
    FragmentA last{};
    AGON_UNROLL
    for (int n = 0; n < N / 2; ++n) {
      if (!diagonal || n < warp()) add<D>(answer, as_weights(weights, n), values, 16 * n);
      if (n == warp()) last = as_weights(weights, n);
    }
    if (diagonal) add_diagonal<D>(answer, last, values, first_row);
    __syncthreads();
  }
  const TileRows<bf16> rows = tile.queries(y, s, head);
  for (int half = 0; half < 2; ++half) {
    for (int bits = 1; bits < 4; bits *= 2) sum[half] += __shfl_xor_sync(kAllLanes, sum[half], bits);
    const int row = first_row + lane() / 4 + 8 * half;
    if (rows.has(row) && lane() % 4 == 0)
      logsumexp[tile.statistic(row, s, head)] = top[half] / kLog2E + logf(sum[half]);
  }
  store_rows<D>(rows, first_row, answer, 1 / sum[0], 1 / sum[1]);
}

template <int D>
inline constexpr size_t kBackwardQueriesShared = 4 * kTile<D> * sizeof(bf16);

template <int D>
__global__ void __launch_bounds__(kThreads)
    backward_queries(bf16* dq, const bf16* dy, const float* logsumexp, const float* delta, const bf16* q, const bf16* k,
                     const bf16* v, AttentionShape s) {
  constexpr int N = kAttentionTile / 8;
  bf16 *const queries = dynamic_shared<bf16>(), *const slopes = queries + kTile<D>, *const keys = slopes + kTile<D>,
              *const values = keys + kTile<D>;
  AttentionTile tile;
  if (!find_query_tile(tile, s)) return;
  const int head = int(blockIdx.y), key_head = head / s.group(), first_row = kRows * warp();
  start_copy<D>(queries, tile.queries(q, s, head));
  start_copy<D>(slopes, tile.queries(dy, s, head));
  float exponent[2], mean[2];  // of rows lane / 4 and 8 further
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + lane() / 4 + 8 * half;
    const bool has = tile.has_query(row);
    exponent[half] = has ? logsumexp[tile.statistic(row, s, head)] * kLog2E : 0;
    mean[half] = has ? delta[tile.statistic(row, s, head)] : 0;
  }
  FragmentC sums[D / 8] = {};
  for (int index = 0; index <= tile.index; ++index) {
    const bool diagonal = index == tile.index;
    const int count = diagonal ? warp() + 1 : N / 2;
    start_copy<D>(keys, tile.at(index).key_rows(k, s, key_head));
    start_copy<D>(values, tile.at(index).key_rows(v, s, key_head));
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    FragmentC p[N], ds[N];
    multiply<D>(p, queries, first_row, keys, 0, count);
    multiply<D>(ds, slopes, first_row, values, 0, count);
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < 4; ++i) {
        const float weight = exp2f(p[n].r[i] * (s.scale * kLog2E) - exponent[i / 2]);
        ds[n].r[i] = diagonal && !sees_on_diagonal(n, i) ? 0 : weight * (ds[n].r[i] - mean[i / 2]);
      }
    for (int n = 0; n < N / 2; ++n)
      if (n < count) add<D>(sums, as_weights(ds, n), keys, 16 * n);
    __syncthreads();
  }
  store_rows<D>(tile.queries(dq, s, head), first_row, sums, s.scale, s.scale);
}

/// Queries of a tile that are taken at once where keys gather from them: more do not fit the registers.
inline constexpr int kQueries = 32;

template <int D>
inline constexpr size_t kBackwardKeysShared = 4 * kTile<D> * sizeof(bf16) + 2 * kAttentionTile * sizeof(float);

/// Scores stand transposed here: rows are keys.
template <int D>
__global__ void __launch_bounds__(kThreads)
    backward_keys(bf16* dk, bf16* dv, const bf16* dy, const float* logsumexp, const float* delta, const bf16* q,
                  const bf16* k, const bf16* v, AttentionShape s) {
  constexpr int N = kQueries / 8;
  bf16 *const keys = dynamic_shared<bf16>(), *const values = keys + kTile<D>, *const queries = values + kTile<D>,
              *const slopes = queries + kTile<D>;
  float *const exponents = reinterpret_cast<float*>(slopes + kTile<D>), *const means = exponents + kAttentionTile;
  AttentionTile tile;
  if (!find_key_tile(tile, s)) return;
  const int key_head = int(blockIdx.y), first_row = kRows * warp();
  if (tile.first_seeing_tile() < tile.query_tiles()) {
    start_copy<D>(keys, tile.key_rows(k, s, key_head));
    start_copy<D>(values, tile.key_rows(v, s, key_head));
  }
  FragmentC dk_sums[D / 8] = {}, dv_sums[D / 8] = {};
  for (int head = key_head * s.group(); head < (key_head + 1) * s.group(); ++head)
    for (int index = tile.first_seeing_tile(); index < tile.query_tiles(); ++index) {
      const AttentionTile seeing = tile.at(index);
      const bool diagonal = index == tile.index;
      start_copy<D>(queries, seeing.queries(q, s, head));
      start_copy<D>(slopes, seeing.queries(dy, s, head));
      commit_copies();
      // A query that does not exist has the slope 0, so that it adds nothing.
      if (const int row = int(threadIdx.x); row < kAttentionTile) {
        const bool has = seeing.has_query(row);
        exponents[row] = has ? logsumexp[seeing.statistic(row, s, head)] * kLog2E : 0;
        means[row] = has ? delta[seeing.statistic(row, s, head)] : 0;
      }
      wait_for_copies<0>();
      __syncthreads();
      for (int first = 0; first < kAttentionTile; first += kQueries) {
        if (diagonal && first + kQueries <= first_row) continue;  // they see none of this warp's keys
        FragmentC p[N], ds[N];
        multiply<D>(p, keys, first_row, queries, first);
        multiply<D>(ds, values, first_row, slopes, first);
        for (int n = 0; n < N; ++n)
          for (int i = 0; i < 4; ++i) {
            const int query = first + 8 * n + column_of_c(lane(), i), key = first_row + row_of_c(lane(), i);
            const bool sees = !diagonal || key <= query;
            p[n].r[i] = sees ? exp2f(p[n].r[i] * (s.scale * kLog2E) - exponents[query]) : 0;
            ds[n].r[i] = sees ? p[n].r[i] * (ds[n].r[i] - means[query]) : 0;
          }
        for (int n = 0; n < N / 2; ++n) {
          add<D>(dv_sums, as_weights(p, n), slopes, first + 16 * n);
          add<D>(dk_sums, as_weights(ds, n), queries, first + 16 * n);
        }
      }
      __syncthreads();
    }
  store_rows<D>(tile.key_rows(dk, s, key_head), first_row, dk_sums, s.scale, s.scale);
  store_rows<D>(tile.key_rows(dv, s, key_head), first_row, dv_sums, 1, 1);
}

}  // namespace agon::cuda::tensor_core
