#pragma once
#include "ops/cuda/bias.cuh"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/tile.cuh"

// Products of groups of rows with one matrix each. Which rows a group has is known on the device only, so a fixed
// number of blocks walks the tiles and finds each one's group from the offsets.

namespace agon::cuda {

/// Two neighbours of a row of width n, of which the second may not exist.
template <class Out>
__device__ __forceinline__ void store_pair(Out* row, int64_t column, int64_t n, float left, float right) {
  Out* const to = row + column;
  if (n % 2 == 0) {  // then pairs are aligned
    if constexpr (std::is_same_v<Out, bf16>)
      *reinterpret_cast<uint32_t*>(to) = pack_bf16(left, right);
    else
      *reinterpret_cast<float2*>(to) = make_float2(left, right);
  } else {
    to[0] = Out(left);
    if (column + 1 < n) to[1] = Out(right);
  }
}

template <class T>
struct RowsOfGroups {
  T* c;                    // [rows, n]
  const T* a;              // [rows, k]
  const T* b;              // of each group: [n, k] along the depth, [k, n] along the side
  Numbers bias;            // [groups, n]
  const int32_t* offsets;  // [groups + 1]
  int groups;
  int64_t rows, n, k;
};

/// c[i] = a[i] b[e] (+ bias[e]) for the rows i of each group e; rows of no group, which come last, become 0. Tiles are
/// walked group after group, in a group down the rows first: blocks that run at once share their columns of b.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) multiply_rows(RowsOfGroups<typename Tile::Element> p) {
  using T = typename Tile::Element;
  Tile tile(dynamic_shared<T>());
  const int64_t columns = (p.n + Tile::kColumns - 1) / Tile::kColumns;
  int64_t begin = 0, end = p.offsets[p.groups > 0 ? 1 : 0], first = 0;  // the group's rows, and its first tile
  int group = p.groups > 0 ? 0 : -1;
  for (int64_t at = blockIdx.x;; at += gridDim.x) {
    int64_t down = (end - begin + Tile::kRows - 1) / Tile::kRows;
    while (at - first >= down * columns) {
      if (group == p.groups) return;
      first += down * columns;
      ++group;
      begin = end;
      end = group < p.groups ? p.offsets[group + 1] : p.rows;
      down = (end - begin + Tile::kRows - 1) / Tile::kRows;
    }
    const int64_t row = begin + (at - first) % down * Tile::kRows, column = (at - first) / down * Tile::kColumns;
    if (group < p.groups) {
      const Source<T> a = {p.a + row * p.k, p.k, int(end - row), int(p.k)};
      const T* const b = p.b + group * p.n * p.k;
      if constexpr (Tile::kAlongB == Along::depth)
        tile.multiply(a, {b + column * p.k, p.k, int(p.n - column), int(p.k)});
      else
        tile.multiply(a, {b + column, p.n, int(p.n - column), int(p.k)});
    } else {
      tile.clear();
    }
    const bool with_bias = p.bias.data && group < p.groups;
    tile.each_pair([&](int i, int j, float left, float right) {
      if (row + i >= end || column + j >= p.n) return;
      if (with_bias) {
        const int64_t here = group * p.n + column + j;
        left += p.bias[here];
        if (column + j + 1 < p.n) right += p.bias[here + 1];
      }
      store_pair(p.c + (row + i) * p.n, column + j, p.n, left, right);
    });
  }
}

/// c[e] = [c[e] +] a[group e]ᵀ b[group e]: a [rows, m], b [rows, n], c [groups, m, n]. Of an empty group: 0, or
/// untouched.
template <class Tile, class Out>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    multiply_groups(Out* c, bool add, const typename Tile::Element* a, const typename Tile::Element* b,
                    const int32_t* offsets, int64_t groups, int64_t m, int64_t n) {
  using T = typename Tile::Element;
  Tile tile(dynamic_shared<T>());
  const int64_t down = (m + Tile::kRows - 1) / Tile::kRows, across = (n + Tile::kColumns - 1) / Tile::kColumns;
  for (int64_t at = blockIdx.x; at < groups * down * across; at += gridDim.x) {
    const int64_t group = at / (down * across), row = at % down * Tile::kRows,
                  column = at / down % across * Tile::kColumns, begin = offsets[group];
    const int depth = offsets[group + 1] - int(begin);
    if (add && depth == 0) continue;
    tile.multiply({a + begin * m + row, m, int(m - row), depth}, {b + begin * n + column, n, int(n - column), depth});
    tile.each_pair([&](int i, int j, float left, float right) {
      if (row + i >= m || column + j >= n) return;
      Out* const to = c + (group * m + row + i) * n;
      if (add) {
        left += float(to[column + j]);
        if (column + j + 1 < n) right += float(to[column + j + 1]);
      }
      store_pair(to, column + j, n, left, right);
    });
  }
}

}  // namespace agon::cuda
