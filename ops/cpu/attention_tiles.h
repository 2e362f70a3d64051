#pragma once
#include <algorithm>
#include <vector>

#include "core/tensor.h"
#include "ops/cpu/gemm.h"

namespace agon::cpu {

/// Queries and keys a tile of attention spans. Tiles start at multiples of it, counted from the first key of the
/// sequence, so the pieces a row is computed in depend on its position alone.
inline constexpr int64_t kAttentionTile = 64;

/// One sequence: n queries from row `query` on, the last aligned with the last of m keys from row `key` on.
struct Sequence {
  int64_t query, n, key, m;
  int64_t first_position() const { return m - n; }  ///< of the first query among the keys
};

/// Some queries of one sequence, within one tile.
struct QueryTile {
  Sequence sequence;
  int64_t position, count;  // of its first query among the keys
  int64_t row() const { return sequence.query + position - sequence.first_position(); }
  int64_t diagonal() const {
    return position / kAttentionTile * kAttentionTile;
  }  ///< first key of the tile it stands in
};

inline std::vector<Sequence> sequences(const Tensor& query_offsets, const Tensor& key_offsets, int64_t queries,
                                       int64_t keys) {
  const auto q = query_offsets.data<const int32_t>(), k = key_offsets.data<const int32_t>();
  std::vector<Sequence> all;
  for (size_t b = 0; b + 1 < q.size(); ++b) {
    const Sequence s{q[b], q[b + 1] - q[b], k[b], k[b + 1] - k[b]};
    check(s.n >= 0 && s.n <= s.m, "attention: sequence ", b, " has ", s.n, " queries and ", s.m,
          " keys; expected offsets that ascend and no more queries than keys");
    all.push_back(s);
  }
  check(q.front() == 0 && q.back() == queries && k.front() == 0 && k.back() <= keys, "attention: the offsets cover ",
        q.back(), " queries and ", k.back(), " keys, expected ", queries, " and at most ", keys);
  return all;
}

/// The tiles of the queries at `from` and later positions.
inline std::vector<QueryTile> query_tiles(const Sequence& s, int64_t from) {
  std::vector<QueryTile> tiles;
  for (int64_t position = std::max(from, s.first_position()); position < s.m;) {
    const int64_t end = std::min(s.m, (position / kAttentionTile + 1) * kAttentionTile);
    tiles.push_back({s, position, end - position});
    position = end;
  }
  return tiles;
}

/// The rows of one head of a tensor [T, heads, d] as a matrix, from row `row` on.
inline ConstMatrix head_rows(const Tensor& t, int64_t row, int64_t head) {
  return ConstMatrix{t.address(), t.dtype(), t.shape(1) * t.shape(2), 1}.from(row, head * t.shape(2));
}

}  // namespace agon::cpu
