#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/lanes.h"

namespace agon {

namespace {

using cpu::kAttentionTile;

/// The running softmax and answer of the queries of one tile (one head).
template <class T, class A>
class OnlineSoftmax {
 public:
  OnlineSoftmax(const cpu::QueryTile& tile, cpu::ConstMatrix queries, int64_t width)
      : tile_(tile),
        queries_(queries),
        width_(width),
        scale_(A(1 / std::sqrt(double(width)))),
        top_(size_t(tile.count), -std::numeric_limits<A>::infinity()),
        sum_(size_t(tile.count)),
        answer_(size_t(tile.count * width)),
        scores_(size_t(tile.count * kAttentionTile)) {}

  /// Takes in the keys [first_key, first_key + n) of the sequence.
  void add(int64_t first_key, int64_t n, cpu::ConstMatrix keys, cpu::ConstMatrix values) {
    const cpu::Matrix scores{scores_.data(), dtype_of<A>, kAttentionTile};
    cpu::gemm(tile_.count, n, width_, queries_, keys.transposed(), scores);
    for (int64_t i = 0; i < tile_.count; ++i) weigh(i, std::min(n, tile_.position + i + 1 - first_key));
    if (first_key != tile_.diagonal()) return add_values(0, tile_.count, n, values);
    // On the diagonal rows see different numbers of keys: a strip of rows takes those that all of it sees at once, then
    // each row its own few. Strips are cut by position, as tiles are.
    for (int64_t i = 0, end; i < tile_.count; i = end) {
      const int64_t shared = (tile_.position + i - first_key) / kStrip * kStrip;
      end = std::min(tile_.count, first_key + shared + kStrip - tile_.position);
      if (shared > 0) add_values(i, end - i, shared, values);
      for (int64_t row = i; row < end; ++row)
        for (int64_t j = shared; j <= tile_.position + row - first_key; ++j)
          add_value(row, scores_[size_t(row * kAttentionTile + j)], values.from(j, 0));
    }
  }

  /// Writes row i of the answer; returns the logsumexp of its scores.
  A finish(int64_t i, T* out) const {
    const A inverse = A(1) / sum_[size_t(i)];
    for (int64_t c = 0; c < width_; ++c) out[c] = T(answer_[size_t(i * width_ + c)] * inverse);
    return top_[size_t(i)] + std::log(sum_[size_t(i)]);
  }

 private:
  static constexpr int64_t kStrip = 8;

  /// Turns the first `visible` scores of row i into weights relative to the largest so far.
  void weigh(int64_t i, int64_t visible) {
    A* const row = scores_.data() + i * kAttentionTile;
    const A scale = scale_, before = top_[size_t(i)];
    const A top = cpu::max_lanes<A>(before, visible, [=](int64_t j) { return row[j] * scale; });
    for (int64_t j = 0; j < visible; ++j) row[j] = cpu::exp(row[j] * scale - top);
    const A shrink = cpu::exp(before - top);
    sum_[size_t(i)] = sum_[size_t(i)] * shrink + cpu::sum_lanes<A>(visible, [=](int64_t j) { return row[j]; });
    A* const answer = answer_.data() + i * width_;
    for (int64_t c = 0; c < width_; ++c) answer[c] *= shrink;
    top_[size_t(i)] = top;
  }

  /// answer[rows] += weights[rows, 0 .. keys) values.
  void add_values(int64_t row, int64_t rows, int64_t keys, cpu::ConstMatrix values) {
    const cpu::ConstMatrix weights{scores_.data() + row * kAttentionTile, dtype_of<A>, kAttentionTile, 1};
    cpu::gemm(rows, width_, keys, weights, values, {answer_.data() + row * width_, dtype_of<A>, width_}, true);
  }

  void add_value(int64_t row, A weight, cpu::ConstMatrix value) {
    const T* const v = static_cast<const T*>(value.data);
    A* const answer = answer_.data() + row * width_;
    for (int64_t c = 0; c < width_; ++c) answer[c] += weight * A(v[c]);
  }

  cpu::QueryTile tile_;
  cpu::ConstMatrix queries_;
  int64_t width_;
  A scale_;
  std::vector<A> top_, sum_, answer_, scores_;
};

/// One tile of the backward pass: P = exp(scores - logsumexp) and dS = P (dP - delta) * scale, both 0 where masked.
template <class A>
struct GradientTile {
  std::vector<A> weights = std::vector<A>(size_t(kAttentionTile * kAttentionTile)), slopes = weights;

  void make(const cpu::QueryTile& tile, int64_t first_key, int64_t keys, A scale, const A* logsumexp, const A* delta,
            int64_t heads) {
    for (int64_t i = 0; i < tile.count; ++i) {
      A *const p = weights.data() + i * kAttentionTile, *const s = slopes.data() + i * kAttentionTile;
      const int64_t visible = std::min(keys, tile.position + i + 1 - first_key);
      const A lse = logsumexp[i * heads], mean = delta[i * heads];
      for (int64_t j = 0; j < visible; ++j) {
        p[j] = cpu::exp(p[j] * scale - lse);
        s[j] = p[j] * (s[j] - mean) * scale;
      }
      std::fill(p + visible, p + keys, A(0));
      std::fill(s + visible, s + keys, A(0));
    }
  }
};

}  // namespace

void Attention::Forward::cpu(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& query_offsets, const Tensor& key_offsets) {
  const int64_t heads = q.shape(1), width = q.shape(2), group = heads / k.shape(1);
  std::vector<cpu::QueryTile> tiles;
  for (const cpu::Sequence& s : cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0)))
    for (const cpu::QueryTile& tile : cpu::query_tiles(s, 0)) tiles.push_back(tile);
  visit_float(q.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    T* const out = y.data<T>().data();
    A* const saved = logsumexp.data<A>().data();
    parallel_tasks(int64_t(tiles.size()) * heads, [&](int64_t task) {
      const cpu::QueryTile& tile = tiles[size_t(task / heads)];
      const int64_t head = task % heads;
      OnlineSoftmax<T, A> softmax(tile, cpu::head_rows(q, tile.row(), head), width);
      const int64_t end = tile.position + tile.count;
      for (int64_t key = 0; key < end; key += kAttentionTile) {
        const int64_t row = tile.sequence.key + key;
        softmax.add(key, std::min(kAttentionTile, end - key), cpu::head_rows(k, row, head / group),
                    cpu::head_rows(v, row, head / group));
      }
      for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t at = (tile.row() + i) * heads + head;
        saved[at] = softmax.finish(i, out + at * width);
      }
    });
  });
}

void Attention::Backward::cpu(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                              const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& query_offsets, const Tensor& key_offsets) {
  const int64_t heads = q.shape(1), width = q.shape(2), groups = k.shape(1), group = heads / groups;
  const auto all = cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0));
  const DType exact = accumulator_dtype(q.dtype());
  // dq is summed over the tiles of keys, so it needs the accumulator's precision until the end.
  const Tensor dq_sum = q.dtype() == exact ? dq : Tensor(q.shape(), exact);
  const Tensor delta({q.shape(0), heads}, exact);  // dy . y of each query and head
  visit_float(q.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const A* const lse = logsumexp.data<const A>().data();
    A* const means = delta.data<A>().data();
    const T *const answers = y.data<const T>().data(), *const slopes = dy.data<const T>().data();
    parallel_ranges(q.shape(0) * heads, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        means[i] =
            cpu::sum_lanes<A>(width, [=](int64_t c) { return A(answers[i * width + c]) * A(slopes[i * width + c]); });
    });
    const int64_t used = key_offsets.data<const int32_t>().back() * groups * width;
    for (const Tensor* unseen : {&dk, &dv}) std::ranges::fill(unseen->data<T>().subspan(size_t(used)), T{});
    const A scale = A(1 / std::sqrt(double(width)));
    parallel_tasks(int64_t(all.size()) * groups, [&](int64_t task) {
      const cpu::Sequence& s = all[size_t(task / groups)];
      const int64_t key_head = task % groups;
      GradientTile<A> tile;
      const cpu::ConstMatrix weights{tile.weights.data(), exact, kAttentionTile, 1},
          slope{tile.slopes.data(), exact, kAttentionTile, 1};
      std::vector<A> dk_tile(size_t(kAttentionTile * width)), dv_tile(dk_tile.size());
      for (int64_t key = 0; key < s.m; key += kAttentionTile) {
        const int64_t keys = std::min(kAttentionTile, s.m - key);
        const auto k_rows = cpu::head_rows(k, s.key + key, key_head), v_rows = cpu::head_rows(v, s.key + key, key_head);
        std::fill(dk_tile.begin(), dk_tile.end(), A(0));
        std::fill(dv_tile.begin(), dv_tile.end(), A(0));
        const auto tiles = cpu::query_tiles(s, key);
        for (int64_t head = key_head * group; head < (key_head + 1) * group; ++head)
          for (const cpu::QueryTile& queries : tiles) {
            const int64_t n = queries.count, at = queries.row() * heads + head;
            const auto q_rows = cpu::head_rows(q, queries.row(), head),
                       dy_rows = cpu::head_rows(dy, queries.row(), head);
            cpu::gemm(n, keys, width, q_rows, k_rows.transposed(), {tile.weights.data(), exact, kAttentionTile});
            cpu::gemm(n, keys, width, dy_rows, v_rows.transposed(), {tile.slopes.data(), exact, kAttentionTile});
            tile.make(queries, key, keys, scale, lse + at, means + at, heads);
            cpu::gemm(keys, width, n, weights.transposed(), dy_rows, {dv_tile.data(), exact, width}, true);
            cpu::gemm(keys, width, n, slope.transposed(), q_rows, {dk_tile.data(), exact, width}, true);
            cpu::gemm(n, width, keys, slope, k_rows, {dq_sum.data<A>().data() + at * width, exact, heads * width},
                      key > 0);
          }
        for (int64_t j = 0; j < keys; ++j) {
          const int64_t at = ((s.key + key + j) * groups + key_head) * width;
          for (int64_t c = 0; c < width; ++c) {
            dk.data<T>()[size_t(at + c)] = T(dk_tile[size_t(j * width + c)]);
            dv.data<T>()[size_t(at + c)] = T(dv_tile[size_t(j * width + c)]);
          }
        }
      }
    });
  });
  if (q.dtype() != exact) copy(dq, dq_sum);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& query_offsets,
                 const Tensor& key_offsets) {
  check(q.shape().rank() == 3 && k.shape().rank() == 3 && k.shape() == v.shape() && q.shape(2) == k.shape(2) &&
            k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0 && q.dtype() == k.dtype() && k.dtype() == v.dtype(),
        "attention: expected q [Tq, H, d], k and v [Tk, G, d] of one dtype with H a multiple of G, got q ", q.dtype(),
        ' ', q.shape(), ", k ", k.dtype(), ' ', k.shape(), ", v ", v.dtype(), ' ', v.shape());
  check(query_offsets.dtype() == DType::i32 && key_offsets.dtype() == DType::i32 &&
            query_offsets.shape() == key_offsets.shape() && query_offsets.size() >= 1,
        "attention: expected offsets of queries and keys i32 [B + 1], got ", query_offsets.dtype(), ' ',
        query_offsets.shape(), " and ", key_offsets.dtype(), ' ', key_offsets.shape());
  Tensor y(q.shape(), q.dtype(), q.device());
  Tensor logsumexp({q.shape(0), q.shape(1)}, accumulator_dtype(q.dtype()), q.device());
  run<Attention::Forward>(q.device(), y, logsumexp, q, k, v, query_offsets, key_offsets);
  return record("attention", {&q, &k, &v}, y,
                [q, k, v, query_offsets, key_offsets, y, logsumexp](Gradients& g, const Tensor& dy) {
                  Tensor dq(q.shape(), q.dtype(), q.device()), dk(k.shape(), k.dtype(), k.device()),
                      dv(v.shape(), v.dtype(), v.device());
                  run<Attention::Backward>(q.device(), dq, dk, dv, dy, y, logsumexp, q, k, v, query_offsets,
                                           key_offsets);
                  g.add(q, dq);
                  g.add(k, dk);
                  g.add(v, dv);
                });
}

}  // namespace agon
