#pragma once
#include <algorithm>
#include <vector>

#include "core/tensor.h"
#include "ops/cpu/attention_kernels.h"

namespace agon::cpu {

/// One sequence: n queries from row `query` on, the last aligned with the last of m keys from row `key` on.
struct Sequence {
  int64_t query, n, key, m;
  int64_t first_position() const { return m - n; }  ///< of the first query among the keys
};

inline int64_t attention_tiles(int64_t n) { return (n + kAttentionTile - 1) / kAttentionTile; }

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

/// One head of some rows of a tensor [T, heads, d]: row i starts at data[i * stride].
template <class T>
struct HeadRows {
  T* data;
  int64_t stride;

  HeadRows(const Tensor& t, int64_t row, int64_t head)
      : data(t.data<T>().data() + (row * t.shape(1) + head) * t.shape(2)), stride(t.shape(1) * t.shape(2)) {}
  T* row(int64_t i) const { return data + i * stride; }
};

}  // namespace agon::cpu
