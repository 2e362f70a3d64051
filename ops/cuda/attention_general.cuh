#pragma once
#include "core/cuda/reduce.cuh"
#include "ops/cuda/attention_tiles.cuh"

// Attention for any head width, in f32: 256 threads make a tile of 64 queries times 64 keys, thread (x, y) of 16 x 16
// the rows y + 16 i and the columns x + 16 j. A block makes 16 N columns of its result; where the head is wider, other
// blocks make the rest and the scores are computed again there, so that no width is too wide.

namespace agon::cuda {

namespace general {

inline constexpr int kThreads = 256, kPer = 4;  // rows and columns of a tile a thread has
inline constexpr int kPiece = 32;               // of a sum, in shared memory at once
inline constexpr int kStage = 2 * kAttentionTile * (kPiece + 1);
/// A tile of weights in shared memory, one number longer than it needs: threads side by side meet different banks.
using Weights = float[kAttentionTile][kAttentionTile + 1];
using Part = float[kPer][kPer];

__device__ inline int x() { return int(threadIdx.x) % 16; }
__device__ inline int y() { return int(threadIdx.x) / 16; }

/// part = a bᵀ, rows that do not exist being 0.
template <class T>
__device__ void multiply(Part& part, const TileRows<const T>& a, const TileRows<const T>& b, int width, float* stage) {
  const auto left = reinterpret_cast<float(*)[kPiece + 1]>(stage), right = left + kAttentionTile;
  for (auto& row : part)
    for (float& sum : row) sum = 0;
  for (int first = 0; first < width; first += kPiece) {
    const int n = width - first < kPiece ? width - first : kPiece;
    __syncthreads();
    for (int i = int(threadIdx.x); i < kAttentionTile * kPiece; i += kThreads) {
      const int row = i / kPiece, c = i % kPiece;
      left[row][c] = a.has(row) && c < n ? float(a[row][first + c]) : 0;
      right[row][c] = b.has(row) && c < n ? float(b[row][first + c]) : 0;
    }
    __syncthreads();
    for (int c = 0; c < n; ++c)
      for (int i = 0; i < kPer; ++i)
        for (int j = 0; j < kPer; ++j) part[i][j] += left[y() + 16 * i][c] * right[x() + 16 * j][c];
  }
}

/// The column of N per thread that sum j is of; 4 neighbours are read at once.
__device__ inline int column(int j) { return x() * 4 + j / 4 * 64 + j % 4; }

/// sums[i][j] += weights[row i][k] values[k][column j], k < count[i]. The weights may have been written just before.
template <int N, class T>
__device__ void add(float (&sums)[kPer][N], const Weights& weights, const TileRows<const T>& values, int first_column,
                    int width, const int (&count)[kPer], float* stage) {
  for (int first = 0; first < values.end; first += kPiece) {
    __syncthreads();
    for (int i = int(threadIdx.x); i < kPiece * 16 * N; i += kThreads) {
      const int row = first + i / (16 * N), c = first_column + i % (16 * N);
      stage[i] = values.has(row) && c < width ? float(values[row][c]) : 0;
    }
    __syncthreads();
    const int n = values.end - first < kPiece ? values.end - first : kPiece;
    for (int k = 0; k < n; ++k) {
      float value[N];
      for (int j = 0; j < N; j += 4) {
        const auto four = load<4>(stage + k * 16 * N + column(j));
        for (int l = 0; l < 4; ++l) value[j + l] = four[l];
      }
      for (int i = 0; i < kPer; ++i) {
        if (first + k >= count[i]) continue;  // not touched: it may be NaN
        const float weight = weights[y() + 16 * i][first + k];
        for (int j = 0; j < N; ++j) sums[i][j] += weight * value[j];
      }
    }
  }
}

__device__ inline void write(Weights& weights, const Part& part) {
  for (int i = 0; i < kPer; ++i)
    for (int j = 0; j < kPer; ++j) weights[y() + 16 * i][x() + 16 * j] = part[i][j];
}

template <int N, class T>
__device__ void store_rows(const TileRows<T>& to, const float (&sums)[kPer][N], int first_column, int width,
                           const float (&factor)[kPer]) {
  for (int i = 0; i < kPer; ++i)
    for (int j = 0; j < N; ++j)
      if (const int c = first_column + column(j); to.has(y() + 16 * i) && c < width)
        to[y() + 16 * i][c] = T(sums[i][j] * factor[i]);
}

/// Over the 16 threads of a row.
template <class F>
__device__ float reduce_row(float v, F join) {
  for (int bits = 8; bits > 0; bits /= 2) v = join(v, __shfl_xor_sync(kAllLanes, v, bits));
  return v;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward(T* y_all, float* logsumexp, const T* q, const T* k, const T* v, AttentionShape s) {
  __shared__ __align__(16) float stage[kStage];
  __shared__ Weights weights;
  static_assert(kPiece * 16 * N <= kStage);
  AttentionTile tile;
  if (!find_query_tile(tile, s)) return;
  const int head = int(blockIdx.y), key_head = head / s.group(), first_column = int(blockIdx.z) * 16 * N;
  const TileRows<const T> queries = tile.queries(q, s, head);
  float answer[kPer][N] = {}, top[kPer], sum[kPer] = {};
  for (float& t : top) t = -INFINITY;
  for (int index = 0; index <= tile.index; ++index) {
    const AttentionTile keys = tile.at(index);
    Part part;
    multiply(part, queries, keys.key_rows(k, s, key_head), s.width, stage);
    int visible[kPer];
    for (int i = 0; i < kPer; ++i) {
      const int row = y() + 16 * i;
      visible[i] = index < tile.index ? kAttentionTile : row + 1;
      float highest = top[i];
      for (int j = 0; j < kPer; ++j) {
        part[i][j] *= s.scale * kLog2E;
        if (x() + 16 * j < visible[i]) highest = Larger()(highest, part[i][j]);
      }
      highest = reduce_row(highest, Larger());
      float total = 0;
      for (int j = 0; j < kPer; ++j) {
        part[i][j] = x() + 16 * j < visible[i] ? exp2f(part[i][j] - highest) : 0;
        total += part[i][j];
      }
      const float shrink = exp2f(top[i] - highest);
      sum[i] = sum[i] * shrink + reduce_row(total, Plus());
      for (float& a : answer[i]) a *= shrink;
      top[i] = highest;
    }
    write(weights, part);
    add(answer, weights, keys.key_rows(v, s, key_head), first_column, s.width, visible, stage);
  }
  float inverse[kPer];
  for (int i = 0; i < kPer; ++i) {
    const int row = y() + 16 * i;
    inverse[i] = 1 / sum[i];
    if (queries.has(row) && x() == 0 && first_column == 0)
      logsumexp[tile.statistic(row, s, head)] = top[i] / kLog2E + logf(sum[i]);
  }
  store_rows(tile.queries(y_all, s, head), answer, first_column, s.width, inverse);
}

/// P = exp(scores - logsumexp) and dS = P (dP - delta), of 0 where a query does not see a key. Rows of the parts are
/// queries, or keys.
template <bool kRowsAreKeys>
__device__ void make_slopes(Part& p, Part& ds, const AttentionTile& queries, const AttentionTile& keys,
                            const float* logsumexp, const float* delta, const AttentionShape& s, int head) {
  for (int i = 0; i < kPer; ++i)
    for (int j = 0; j < kPer; ++j) {
      const int query = kRowsAreKeys ? x() + 16 * j : y() + 16 * i, key = kRowsAreKeys ? y() + 16 * i : x() + 16 * j;
      if (queries.has_query(query) && (keys.index < queries.index || key <= query)) {
        const int64_t at = queries.statistic(query, s, head);
        p[i][j] = exp2f((p[i][j] * s.scale - logsumexp[at]) * kLog2E);
        ds[i][j] = p[i][j] * (ds[i][j] - delta[at]);
      } else {
        p[i][j] = ds[i][j] = 0;
      }
    }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_queries(T* dq, const T* dy, const float* logsumexp, const float* delta, const T* q, const T* k, const T* v,
                     AttentionShape s) {
  __shared__ __align__(16) float stage[kStage];
  __shared__ Weights weights;
  AttentionTile tile;
  if (!find_query_tile(tile, s)) return;
  const int head = int(blockIdx.y), key_head = head / s.group(), first_column = int(blockIdx.z) * 16 * N;
  float sums[kPer][N] = {};
  for (int index = 0; index <= tile.index; ++index) {
    const AttentionTile keys = tile.at(index);
    Part p, ds;
    multiply(p, tile.queries(q, s, head), keys.key_rows(k, s, key_head), s.width, stage);
    multiply(ds, tile.queries(dy, s, head), keys.key_rows(v, s, key_head), s.width, stage);
    make_slopes<false>(p, ds, tile, keys, logsumexp, delta, s, head);
    write(weights, ds);
    const int all[kPer] = {kAttentionTile, kAttentionTile, kAttentionTile, kAttentionTile};
    add(sums, weights, keys.key_rows(k, s, key_head), first_column, s.width, all, stage);
  }
  store_rows(tile.queries(dq, s, head), sums, first_column, s.width, {s.scale, s.scale, s.scale, s.scale});
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_keys(T* dk, T* dv, const T* dy, const float* logsumexp, const float* delta, const T* q, const T* k,
                  const T* v, AttentionShape s) {
  __shared__ __align__(16) float stage[kStage];
  __shared__ Weights weights;
  AttentionTile tile;
  if (!find_key_tile(tile, s)) return;
  const int key_head = int(blockIdx.y), first_column = int(blockIdx.z) * 16 * N;
  float dk_sums[kPer][N] = {}, dv_sums[kPer][N] = {};
  for (int head = key_head * s.group(); head < (key_head + 1) * s.group(); ++head)
    for (int index = tile.first_seeing_tile(); index < tile.query_tiles(); ++index) {
      const AttentionTile queries = tile.at(index);
      const TileRows<const T> q_rows = queries.queries(q, s, head), dy_rows = queries.queries(dy, s, head);
      Part p, ds;
      multiply(p, tile.key_rows(k, s, key_head), q_rows, s.width, stage);
      multiply(ds, tile.key_rows(v, s, key_head), dy_rows, s.width, stage);
      make_slopes<true>(p, ds, queries, tile, logsumexp, delta, s, head);
      const int all[kPer] = {kAttentionTile, kAttentionTile, kAttentionTile, kAttentionTile};
      write(weights, p);
      add(dv_sums, weights, dy_rows, first_column, s.width, all, stage);
      __syncthreads();
      write(weights, ds);
      add(dk_sums, weights, q_rows, first_column, s.width, all, stage);
    }
  store_rows(tile.key_rows(dk, s, key_head), dk_sums, first_column, s.width, {s.scale, s.scale, s.scale, s.scale});
  store_rows(tile.key_rows(dv, s, key_head), dv_sums, first_column, s.width, {1, 1, 1, 1});
}

}  // namespace general

}  // namespace agon::cuda
