#pragma once
#include "core/cuda/launch.cuh"
#include "core/cuda/vec.cuh"

// Which queries and keys a block of an attention kernel works on. The offsets are on the GPU, so a grid has as many
// blocks as any offsets could need; a block finds its tile in them, or that it has none.

namespace agon::cuda {

/// Queries and keys a tile spans. Tiles start at multiples of it, counted from the first key of the sequence, so the
/// pieces a row is computed in depend on its position alone.
inline constexpr int kAttentionTile = 64;

/// Weights are powers of 2, which a GPU has an instruction for.
inline constexpr float kLog2E = 1.44269504f;

/// What every attention kernel is told: q [Tq, heads, width], k and v [keys, key_heads, width].
struct AttentionShape {
  int heads, key_heads, width, keys, sequences;
  float scale;  // of the scores
  const int32_t *query_offsets, *key_offsets;

  __device__ int group() const { return heads / key_heads; }
};

/// The rows of one head in one tile.
template <class T>
struct TileRows {
  T* tensor;
  int64_t start, step;  // of row 0 and from row to row, in elements; there may be no row 0
  int begin, end;       // the rows that exist

  __device__ bool has(int row) const { return row >= begin && row < end; }
  __device__ T* operator[](int row) const { return tensor + start + row * step; }
};

/// One tile of the positions of one sequence.
struct AttentionTile {
  int index;           // of the tile in its sequence
  int query;           // row of the query at position 0; less than 0 where there is none
  int first_position;  // of the first query
  int key, m;          // row of the first key; keys

  __device__ AttentionTile at(int other) const { return {other, query, first_position, key, m}; }
  __device__ int tiles() const { return (m + kAttentionTile - 1) / kAttentionTile; }
  __device__ int first_query_tile() const { return first_position / kAttentionTile; }
  /// The tiles with queries that see keys of this one, from the first of them up to query_tiles().
  __device__ int first_seeing_tile() const { return index > first_query_tile() ? index : first_query_tile(); }
  __device__ int query_tiles() const { return first_position < m ? tiles() : 0; }

  template <class T>
  __device__ TileRows<T> queries(T* tensor, const AttentionShape& s, int head) const {
    const int64_t step = int64_t(s.heads) * s.width;
    return {tensor, (query + int64_t(index) * kAttentionTile) * step + int64_t(head) * s.width, step, first_query(),
            end()};
  }
  /// Where the statistics [Tq, heads] of a query are.
  __device__ int64_t statistic(int row, const AttentionShape& s, int head) const {
    return (query + int64_t(index) * kAttentionTile + row) * s.heads + head;
  }
  template <class T>
  __device__ TileRows<T> key_rows(T* tensor, const AttentionShape& s, int key_head) const {
    const int64_t step = int64_t(s.key_heads) * s.width;
    return {tensor, (key + int64_t(index) * kAttentionTile) * step + int64_t(key_head) * s.width, step, 0, end()};
  }

  __device__ bool has_query(int row) const { return row >= first_query() && row < end(); }

 private:
  __device__ int first_query() const {
    const int row = first_position - index * kAttentionTile;
    return row > 0 ? row : 0;
  }
  __device__ int end() const {
    const int rest = m - index * kAttentionTile;
    return rest < kAttentionTile ? rest : kAttentionTile;
  }
};

/// The sequence b, up to and with `last`, whose slots, offsets[b] / kAttentionTile + b * spare and up, hold `slot`.
__device__ inline int sequence_of_slot(const int32_t* offsets, int last, int spare, int slot) {
  int low = 0, high = last;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offsets[middle] / kAttentionTile + middle * spare <= slot)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

__device__ inline AttentionTile tile_of_sequence(const AttentionShape& s, int b, int index) {
  const int query = s.query_offsets[b], n = s.query_offsets[b + 1] - query;
  const int key = s.key_offsets[b], m = s.key_offsets[b + 1] - key;
  return {index, query - (m - n), m - n, key, m};
}

/// Blocks for the tiles of all queries. The queries of a sequence begin anywhere in a tile, so n of them touch
/// n / kAttentionTile + 2 tiles at most.
inline unsigned query_slots(const AttentionShape& s, int64_t queries) {
  return unsigned(queries / kAttentionTile + 2 * int64_t(s.sequences));
}
/// The tile of queries of slot blockIdx.x; false where it has none.
__device__ inline bool find_query_tile(AttentionTile& tile, const AttentionShape& s) {
  const int slot = int(blockIdx.x), b = sequence_of_slot(s.query_offsets, s.sequences - 1, 2, slot);
  tile = tile_of_sequence(s, b, 0);
  tile.index = tile.first_query_tile() + slot - s.query_offsets[b] / kAttentionTile - 2 * b;
  return tile.index < tile.query_tiles();
}

/// Blocks for the tiles of all keys, and of the rows after the last sequence.
inline unsigned key_slots(const AttentionShape& s) { return unsigned(s.keys / kAttentionTile + s.sequences + 1); }
/// The tile of keys of slot blockIdx.x; false where it has none. The rows after the last sequence are tiles that no
/// query sees.
__device__ inline bool find_key_tile(AttentionTile& tile, const AttentionShape& s) {
  const int slot = int(blockIdx.x), b = sequence_of_slot(s.key_offsets, s.sequences, 1, slot);
  const int index = slot - s.key_offsets[b] / kAttentionTile - b;
  if (b < s.sequences) {
    tile = tile_of_sequence(s, b, index);
  } else {
    const int unused = s.keys - s.key_offsets[b];
    tile = {index, 0, unused, s.key_offsets[b], unused};
  }
  return index < tile.tiles();
}

}  // namespace agon::cuda
