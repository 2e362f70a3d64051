#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "ops/cpu/attention_heads.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

using cpu::kAttentionTile, cpu::scratch, cpu::Scratch;

template <class T>
using Blocks = cpu::GemmBlocks<Accumulator<T>>;

/// The running softmax and answer of the queries of one tile (one head).
template <class T, class A = Accumulator<T>>
class OnlineSoftmax {
 public:
  /// memory: size(width) numbers.
  OnlineSoftmax(const Blocks<T>& blocks, const cpu::QueryTile& tile, cpu::ConstMatrix queries, int64_t width, A* memory)
      : gemm_(blocks),
        tile_(tile),
        width_(width),
        scale_(A(1 / std::sqrt(double(width)))),
        top_(memory),
        sum_(top_ + kAttentionTile),
        answer_(sum_ + kAttentionTile),
        scores_(answer_ + kAttentionTile * width),
        queries_(scores_ + kAttentionTile * kAttentionTile),
        weights_(queries_ + kAttentionTile * width) {
    std::fill_n(top_, tile.count, -std::numeric_limits<A>::infinity());
    std::fill_n(sum_, tile.count, A(0));
    std::fill_n(answer_, tile.count * width, A(0));
    gemm_.pack_left(queries_, tile.count, width, queries);
  }
  static int64_t size(int64_t width) { return kAttentionTile * (2 + 2 * width + 2 * kAttentionTile); }

  /// Takes in the n keys from first_key on: packed keys [d, n] and values [n, d], and the values as they lie.
  void add(int64_t first_key, int64_t n, const A* keys, const A* packed_values, cpu::ConstMatrix values) {
    gemm_.multiply_packed(queries_, keys, tile_.count, n, width_, scores_, kAttentionTile, false);
    for (int64_t i = 0; i < tile_.count; ++i) weigh(i, std::min(n, tile_.position + i + 1 - first_key));
    if (first_key != tile_.diagonal()) return add_values(0, tile_.count, n, packed_values, n);
    // On the diagonal rows see different numbers of keys: a strip of rows takes those that all of it sees at once, then
    // each row its own few. Strips are cut by position, as tiles are.
    for (int64_t i = 0, end; i < tile_.count; i = end) {
      const int64_t shared = (tile_.position + i - first_key) / kStrip * kStrip;
      end = std::min(tile_.count, first_key + shared + kStrip - tile_.position);
      if (shared > 0) add_values(i, end - i, shared, packed_values, n);
      for (int64_t row = i; row < end; ++row)
        rows_.add_weighted(answer_ + row * width_, static_cast<const T*>(values.from(shared, 0).data),
                           values.row_stride, scores_ + row * kAttentionTile + shared,
                           tile_.position + row - first_key - shared + 1, width_);
    }
  }

  /// Writes row i of the answer; returns the logsumexp of its scores.
  A finish(int64_t i, T* out) const {
    const A inverse = A(1) / sum_[i];
    for (int64_t c = 0; c < width_; ++c) out[c] = T(answer_[i * width_ + c] * inverse);
    return top_[i] + std::log(sum_[i]);
  }

 private:
  static constexpr int64_t kStrip = 8;

  /// Turns the first `visible` scores of row i into weights relative to the largest so far.
  void weigh(int64_t i, int64_t visible) {
    A* const row = scores_ + i * kAttentionTile;
    const A before = top_[i], top = numbers_.max(before, row, scale_, visible);
    const A sum = numbers_.exp(row, row, scale_, top, visible), shrink = cpu::exp(before - top);
    sum_[i] = sum_[i] * shrink + sum;
    if (shrink != A(1)) numbers_.scale(answer_ + i * width_, answer_ + i * width_, shrink, width_);
    top_[i] = top;
  }

  /// answer[rows] += weights[rows, 0 .. keys) values, of which `packed` were packed together.
  void add_values(int64_t row, int64_t rows, int64_t keys, const A* values, int64_t packed) {
    gemm_.pack_left(weights_, rows, keys, {scores_ + row * kAttentionTile, dtype_of<A>, kAttentionTile, 1});
    gemm_.multiply_packed(weights_, values, rows, width_, keys, answer_ + row * width_, width_, true, packed);
  }

  const Blocks<T>& gemm_;
  const cpu::RowKernels<T>& rows_ = cpu::row_kernels<T>();
  const cpu::RowKernels<A>& numbers_ = cpu::row_kernels<A>();
  cpu::QueryTile tile_;
  int64_t width_;
  A scale_;
  A *top_, *sum_, *answer_, *scores_, *queries_, *weights_;
};

/// Some query tiles of one head of one sequence.
struct ForwardTask {
  cpu::Sequence sequence;
  int64_t head, first, end;  // positions of the queries
};

/// Whole heads, cut where there are too few for the threads: each piece packs the keys it sees.
std::vector<ForwardTask> forward_tasks(const std::vector<cpu::Sequence>& sequences, int64_t heads) {
  const int64_t wanted = 4 * threads(), all = int64_t(sequences.size()) * heads;
  std::vector<ForwardTask> tasks;
  for (const cpu::Sequence& s : sequences) {
    if (s.n == 0) continue;
    const int64_t tiles = (s.n + kAttentionTile - 1) / kAttentionTile;
    const cpu::Pieces pieces = cpu::Pieces::of(tiles, std::max<int64_t>(1, tiles * all / wanted));
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t p = 0; p < pieces.count; ++p) {
        // Pieces end where tiles do, which start at multiples of the tile from the first key on.
        const auto cut = [&](int64_t tile) {
          const int64_t start = s.first_position() / kAttentionTile + tile;
          return tile == 0 ? s.first_position() : std::min(s.m, start * kAttentionTile);
        };
        const int64_t end = p + 1 == pieces.count ? s.m : cut(pieces.begin(p + 1));
        tasks.push_back({s, head, cut(pieces.begin(p)), end});
      }
  }
  return tasks;
}

template <class T>
void attend(const ForwardTask& task, const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
            const Tensor& v) {
  using A = Accumulator<T>;
  const int64_t heads = q.shape(1), width = q.shape(2), key_head = task.head / (heads / k.shape(1));
  const Blocks<T> blocks(cpu::widest_gemm_instructions());
  const cpu::PackedRows<A> packed(blocks, width);
  const int64_t size = packed.size(task.end);
  A* const keys = scratch<A>(Scratch::heads, 2 * size + OnlineSoftmax<T>::size(width));
  A* const values = keys + size;
  A* const saved = logsumexp.data<A>().data();
  T* const answers = y.data<T>().data();
  const auto key_rows = cpu::head_rows(k, task.sequence.key, key_head),
             value_rows = cpu::head_rows(v, task.sequence.key, key_head);
  packed.transposed(keys, task.end, key_rows);
  packed.as_right(values, task.end, value_rows);
  for (int64_t position = task.first; position < task.end;) {
    const int64_t next = std::min(task.end, (position / kAttentionTile + 1) * kAttentionTile);
    const cpu::QueryTile tile{task.sequence, position, next - position};
    OnlineSoftmax<T> softmax(blocks, tile, cpu::head_rows(q, tile.row(), task.head), width, values + size);
    for (int64_t key = 0; key < next; key += kAttentionTile) {
      // A tile of keys was packed whole; of the last one a query late in a sequence that goes on sees a part.
      const int64_t n = std::min(kAttentionTile, task.end - key);
      softmax.add(key, n, packed.tile(keys, key), packed.tile(values, key), value_rows.from(key, 0));
    }
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t at = (tile.row() + i) * heads + task.head;
      saved[at] = softmax.finish(i, answers + at * width);
    }
    position = next;
  }
}

struct BackwardOperands {
  const Tensor &dq, &dk, &dv, &dy, &q, &k, &v, &logsumexp, &delta;  // dq of the accumulator's dtype
};

/// The backward pass of one key head of one sequence.
template <class T>
class HeadGradient {
 public:
  using A = Accumulator<T>;

  HeadGradient(const BackwardOperands& o, const cpu::Sequence& s, int64_t key_head)
      : o_(o),
        s_(s),
        key_head_(key_head),
        width_(o.q.shape(2)),
        heads_(o.q.shape(1)),
        groups_(o.k.shape(1)),
        logsumexp_(o.logsumexp.data<const A>().data()),
        delta_(o.delta.data<const A>().data()),
        dq_(o.dq.data<A>().data()),
        dk_all_(o.dk.data<T>().data()),
        dv_all_(o.dv.data<T>().data()),
        scale_(A(1 / std::sqrt(double(width_)))) {
    const int64_t size = packed_.size(s.m), tile = kAttentionTile * kAttentionTile, rows = kAttentionTile * width_;
    A* memory = scratch<A>(Scratch::heads, 7 * size + 3 * tile + 2 * rows);
    const auto take = [&](int64_t n) { return std::exchange(memory, memory + n); };
    for (A** form :
         {&keys_transposed_, &values_transposed_, &keys_, &left_queries_, &left_slopes_, &queries_, &slopes_})
      *form = take(size);
    for (A** t : {&weights_, &score_slopes_, &left_}) *t = take(tile);
    dk_ = take(rows);
    dv_ = take(rows);
  }

  void operator()() {
    const auto k_rows = cpu::head_rows(o_.k, s_.key, key_head_), v_rows = cpu::head_rows(o_.v, s_.key, key_head_);
    packed_.transposed(keys_transposed_, s_.m, k_rows);
    packed_.transposed(values_transposed_, s_.m, v_rows);
    packed_.as_right(keys_, s_.m, k_rows);
    const int64_t group = heads_ / groups_;
    int64_t held = -1;  // the head whose queries are packed
    for (int64_t key = 0; key < s_.m; key += kAttentionTile) {
      const int64_t n = std::min(kAttentionTile, s_.m - key);
      std::fill_n(dk_, n * width_, A(0));
      std::fill_n(dv_, n * width_, A(0));
      for (int64_t head = key_head_ * group; head < (key_head_ + 1) * group; ++head) {
        if (head != std::exchange(held, head)) pack_queries(head);
        for (const cpu::QueryTile& queries : cpu::query_tiles(s_, key)) add(queries, head, key, n);
      }
      for (const auto& [to, from] : {std::pair{dk_all_, dk_}, {dv_all_, dv_}}) {
        T* row = to + ((s_.key + key) * groups_ + key_head_) * width_;
        for (int64_t j = 0; j < n; ++j, row += groups_ * width_)
          for (int64_t c = 0; c < width_; ++c) row[c] = T(from[j * width_ + c]);
      }
    }
  }

 private:
  /// Queries and the slopes of their answers, tile by tile of positions.
  void pack_queries(int64_t head) {
    for (const cpu::QueryTile& tile : cpu::query_tiles(s_, 0)) {
      const auto q_rows = cpu::head_rows(o_.q, tile.row(), head), dy_rows = cpu::head_rows(o_.dy, tile.row(), head);
      const int64_t at = tile.diagonal();
      packed_.as_left(packed_.tile(left_queries_, at), tile.count, q_rows);
      packed_.as_left(packed_.tile(left_slopes_, at), tile.count, dy_rows);
      packed_.as_right(packed_.tile(queries_, at), tile.count, q_rows);
      packed_.as_right(packed_.tile(slopes_, at), tile.count, dy_rows);
    }
  }

  /// What one tile of queries and one of keys, n of them, give each other.
  void add(const cpu::QueryTile& queries, int64_t head, int64_t key, int64_t n) {
    const int64_t m = queries.count, first = queries.diagonal(), at = queries.row() * heads_ + head;
    gemm_.multiply_packed(packed_.tile(left_queries_, first), packed_.tile(keys_transposed_, key), m, n, width_,
                          weights_, kAttentionTile, false);
    gemm_.multiply_packed(packed_.tile(left_slopes_, first), packed_.tile(values_transposed_, key), m, n, width_,
                          score_slopes_, kAttentionTile, false);
    for (int64_t i = 0; i < m; ++i) make_row(i, std::min(n, queries.position + i + 1 - key), n, at + i * heads_);
    const cpu::ConstMatrix weights{weights_, dtype_of<A>, kAttentionTile, 1},
        slopes{score_slopes_, dtype_of<A>, kAttentionTile, 1};
    gemm_.pack_left(left_, n, m, weights.transposed());
    gemm_.multiply_packed(left_, packed_.tile(slopes_, first), n, width_, m, dv_, width_, true);
    gemm_.pack_left(left_, n, m, slopes.transposed());
    gemm_.multiply_packed(left_, packed_.tile(queries_, first), n, width_, m, dk_, width_, true);
    gemm_.pack_left(left_, m, n, slopes);
    gemm_.multiply_packed(left_, packed_.tile(keys_, key), m, width_, n, dq_ + at * width_, heads_ * width_, key > 0);
  }

  /// P = exp(scores - logsumexp) and dS = P (dP - delta) * scale, both 0 where masked.
  void make_row(int64_t i, int64_t visible, int64_t n, int64_t at) {
    A *const p = weights_ + i * kAttentionTile, *const s = score_slopes_ + i * kAttentionTile;
    numbers_.exp_slopes(p, s, scale_, logsumexp_[at], delta_[at], visible);
    std::fill(p + visible, p + n, A(0));
    std::fill(s + visible, s + n, A(0));
  }

  const BackwardOperands& o_;
  const cpu::Sequence s_;
  const int64_t key_head_, width_, heads_, groups_;
  const A *const logsumexp_, *const delta_;
  A* const dq_;
  T *const dk_all_, *const dv_all_;
  const A scale_;
  const Blocks<T> gemm_{cpu::widest_gemm_instructions()};
  const cpu::PackedRows<A> packed_{gemm_, width_};
  const cpu::RowKernels<A>& numbers_ = cpu::row_kernels<A>();
  A *keys_transposed_, *values_transposed_, *keys_, *left_queries_, *left_slopes_, *queries_, *slopes_;
  A *weights_, *score_slopes_, *left_, *dk_, *dv_;
};

}  // namespace

void Attention::Forward::cpu(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& query_offsets, const Tensor& key_offsets) {
  const auto tasks = forward_tasks(cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0)), q.shape(1));
  visit_float(q.dtype(), [&]<class T>() {
    parallel_tasks(int64_t(tasks.size()), [&](int64_t i) { attend<T>(tasks[size_t(i)], y, logsumexp, q, k, v); });
  });
}

void Attention::Backward::cpu(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                              const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& query_offsets, const Tensor& key_offsets) {
  const int64_t heads = q.shape(1), width = q.shape(2), groups = k.shape(1);
  const auto all = cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0));
  const DType exact = accumulator_dtype(q.dtype());
  // dq is summed over the tiles of keys, so it needs the accumulator's precision until the end.
  const Tensor dq_sum = q.dtype() == exact ? dq : Tensor(q.shape(), exact);
  const Tensor delta({q.shape(0), heads}, exact);  // dy . y of each query and head
  visit_float(q.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    A* const means = delta.data<A>().data();
    const T *const answers = y.data<const T>().data(), *const slopes = dy.data<const T>().data();
    parallel_ranges(q.shape(0) * heads, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        means[i] = cpu::row_kernels<T>().dot(answers + i * width, slopes + i * width, width);
    });
    const int64_t used = key_offsets.data<const int32_t>().back() * groups * width;
    for (const Tensor* unseen : {&dk, &dv}) std::ranges::fill(unseen->data<T>().subspan(size_t(used)), T{});
    const BackwardOperands operands{dq_sum, dk, dv, dy, q, k, v, logsumexp, delta};
    parallel_tasks(int64_t(all.size()) * groups,
                   [&](int64_t task) { HeadGradient<T>(operands, all[size_t(task / groups)], task % groups)(); });
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
