#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/gemm_blocks.h"

namespace agon {

namespace {

using cpu::attention_tiles, cpu::HeadRows, cpu::kAttentionSquare, cpu::kAttentionTile;

template <class T>
const cpu::AttentionKernels<T>& widest() {
  static const cpu::AttentionInstructions& set = *cpu::attention_instructions(0);
  if constexpr (std::is_same_v<T, float>)
    return set.f32;
  else if constexpr (std::is_same_v<T, double>)
    return set.f64;
  else
    return set.half;
}

/// What the two passes share: a head's sizes, and the thread's memory.
template <class T>
class Head {
 protected:
  using A = Accumulator<T>;

  Head(const Tensor& q, const Tensor& k)
      : heads_(q.shape(1)), groups_(k.shape(1)), width_(q.shape(2)), scale_(A(1 / std::sqrt(double(width_)))) {}

  /// Numbers of a tile of rows.
  int64_t tile() const { return cpu::attention_squares(width_) * kAttentionSquare; }
  void reserve(int64_t numbers) { memory_ = cpu::scratch<A>(cpu::Scratch::heads, numbers); }
  A* take(int64_t numbers) { return std::exchange(memory_, memory_ + numbers); }

  /// The n rows as tiles.
  void take_tiles(A* to, const HeadRows<T>& rows, int64_t n) const {
    for (int64_t i = 0; i < n; i += kAttentionTile, to += tile())
      kernels_.take(to, rows.row(i), rows.stride, 0, std::min(kAttentionTile, n - i), width_);
  }

  /// Calls f(position of the first, rows of their squares they stand in) for the queries at [begin, end), tile by tile.
  template <class F>
  static void each_queries(int64_t begin, int64_t end, F&& f) {
    for (int64_t position = begin, next; position < end; position = next) {
      const int64_t start = position / kAttentionTile * kAttentionTile;
      next = std::min(end, start + kAttentionTile);
      f(position, position - start, next - start);
    }
  }

  const cpu::AttentionKernels<T>& kernels_ = widest<T>();
  const int64_t heads_, groups_, width_;
  const A scale_;

 private:
  A* memory_ = nullptr;
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
    const int64_t tiles = attention_tiles(s.n);
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
class HeadAnswer : Head<T> {
 public:
  using typename Head<T>::A;

  HeadAnswer(const ForwardTask& task, const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
             const Tensor& v)
      : Head<T>(q, k),
        task_(task),
        q_(q, task.sequence.query, task.head),
        k_(k, task.sequence.key, task.head / (this->heads_ / this->groups_)),
        v_(v, task.sequence.key, task.head / (this->heads_ / this->groups_)),
        y_(y, task.sequence.query, task.head),
        logsumexp_(logsumexp.data<A>().data() + task.sequence.query * this->heads_ + task.head) {}

  void operator()() {
    const int64_t all = attention_tiles(task_.end) * this->tile();
    this->reserve(2 * all + 2 * this->tile() + kAttentionSquare + 3 * kAttentionTile);
    A *const keys = this->take(all), *const values = this->take(all), *const turned = this->take(this->tile()),
             *const rows = this->take(this->tile()),  // the queries, then the answer
                 *const scores = this->take(kAttentionSquare), *const top = this->take(kAttentionTile),
             *const sum = this->take(kAttentionTile), *const factor = this->take(kAttentionTile);
    this->take_tiles(keys, k_, task_.end);
    this->take_tiles(values, v_, task_.end);
    this->each_queries(task_.first, task_.end, [&](int64_t position, int64_t first, int64_t end) {
      const int64_t query = position - task_.sequence.first_position();
      this->kernels_.take(rows, q_.row(query), q_.stride, first, end, this->width_);
      this->kernels_.turn(turned, rows, first, end, this->width_);
      std::fill_n(top, kAttentionTile, -std::numeric_limits<A>::infinity());
      std::fill_n(sum, kAttentionTile, A(0));
      for (int64_t key = 0; key <= position; key += kAttentionTile)
        this->kernels_.attend({.width = this->width_,
                               .first = first,
                               .end = end,
                               .keys = std::min(kAttentionTile, task_.end - key),
                               .diagonal = key + first == position,
                               .first_keys = key == 0,
                               .first_queries = false,
                               .scale = this->scale_},
                              turned, keys + key / kAttentionTile * this->tile(),
                              values + key / kAttentionTile * this->tile(), scores, {rows, top, sum, factor});
      for (int64_t i = first; i < end; ++i) {
        factor[i] = A(1) / sum[i];
        logsumexp_[(query + i - first) * this->heads_] = top[i] + std::log(sum[i]);
      }
      this->kernels_.give(y_.row(query), y_.stride, rows, factor, first, end, this->width_);
    });
  }

 private:
  const ForwardTask& task_;
  const HeadRows<T> q_, k_, v_, y_;
  A* const logsumexp_;
};

struct BackwardOperands {
  const Tensor &dq, &dk, &dv, &dy, &y, &logsumexp, &q, &k, &v;
};

/// The backward pass of one key head of one sequence.
template <class T>
class HeadGradient : Head<T> {
 public:
  using typename Head<T>::A;

  HeadGradient(const BackwardOperands& o, const cpu::Sequence& s, int64_t key_head)
      : Head<T>(o.q, o.k), o_(o), s_(s), key_head_(key_head) {}

  void operator()() {
    const int64_t all = attention_tiles(s_.m) * this->tile(), group = this->heads_ / this->groups_;
    this->reserve(4 * all + 5 * this->tile() + 2 * kAttentionSquare + 2 * kAttentionTile);
    for (A** rows : {&keys_, &values_, &dk_, &dv_}) *rows = this->take(all);
    for (A** rows : {&queries_, &queries_turned_, &dy_, &dy_turned_, &dq_}) *rows = this->take(this->tile());
    for (A** square : {&weights_, &slopes_}) *square = this->take(kAttentionSquare);
    for (A** numbers : {&logsumexp_, &delta_}) *numbers = this->take(kAttentionTile);
    this->take_tiles(keys_, {o_.k, s_.key, key_head_}, s_.m);
    this->take_tiles(values_, {o_.v, s_.key, key_head_}, s_.m);
    if (s_.n == 0) std::fill_n(dk_, all, A(0)), std::fill_n(dv_, all, A(0));
    for (int64_t head = key_head_ * group; head < (key_head_ + 1) * group; ++head) add_head(head, head % group == 0);
    for (const auto& [to, from] : {std::pair{&o_.dk, dk_}, {&o_.dv, dv_}}) {
      const HeadRows<T> rows(*to, s_.key, key_head_);
      for (int64_t key = 0; key < s_.m; key += kAttentionTile)
        this->kernels_.give(rows.row(key), rows.stride, from + key / kAttentionTile * this->tile(), nullptr, 0,
                            std::min(kAttentionTile, s_.m - key), this->width_);
    }
  }

 private:
  void add_head(int64_t head, bool first_head) {
    const HeadRows<T> q(o_.q, s_.query, head), y(o_.y, s_.query, head), dy(o_.dy, s_.query, head),
        dq(o_.dq, s_.query, head);
    const A* const logsumexp = o_.logsumexp.data<const A>().data() + s_.query * this->heads_ + head;
    this->each_queries(s_.first_position(), s_.m, [&](int64_t position, int64_t first, int64_t end) {
      const int64_t query = position - s_.first_position();
      for (const auto& [rows, turned, from] : {std::tuple{queries_, queries_turned_, q}, {dy_, dy_turned_, dy}}) {
        this->kernels_.take(rows, from.row(query), from.stride, first, end, this->width_);
        this->kernels_.turn(turned, rows, first, end, this->width_);
      }
      for (A* numbers : {logsumexp_, delta_}) std::fill_n(numbers, kAttentionTile, A(0));
      for (int64_t i = first; i < end; ++i) {
        const int64_t at = query + i - first;
        logsumexp_[i] = logsumexp[at * this->heads_];
        delta_[i] = cpu::row_kernels<T>().dot(y.row(at), dy.row(at), this->width_);
      }
      for (int64_t key = 0; key <= position; key += kAttentionTile) {
        const int64_t at = key / kAttentionTile * this->tile();
        const bool diagonal = key + first == position;
        this->kernels_.slope({.width = this->width_,
                              .first = first,
                              .end = end,
                              .keys = std::min(kAttentionTile, s_.m - key),
                              .diagonal = diagonal,
                              .first_keys = key == 0,
                              .first_queries = first_head && (diagonal || query == 0),
                              .scale = this->scale_},
                             {queries_, queries_turned_, dy_, dy_turned_, keys_ + at, values_ + at, logsumexp_, delta_,
                              weights_, slopes_, dq_, dk_ + at, dv_ + at});
      }
      this->kernels_.give(dq.row(query), dq.stride, dq_, nullptr, first, end, this->width_);
    });
  }

  const BackwardOperands& o_;
  const cpu::Sequence& s_;
  const int64_t key_head_;
  A *keys_, *values_, *dk_, *dv_;                          // of the sequence
  A *queries_, *queries_turned_, *dy_, *dy_turned_, *dq_;  // of a tile of queries
  A *weights_, *slopes_, *logsumexp_, *delta_;
};

}  // namespace

void Attention::Forward::cpu(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& query_offsets, const Tensor& key_offsets) {
  const auto tasks = forward_tasks(cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0)), q.shape(1));
  visit_float(q.dtype(), [&]<class T>() {
    parallel_tasks(int64_t(tasks.size()), [&](int64_t i) { HeadAnswer<T>(tasks[size_t(i)], y, logsumexp, q, k, v)(); });
  });
}

void Attention::Backward::cpu(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                              const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& query_offsets, const Tensor& key_offsets) {
  const int64_t groups = k.shape(1), used = key_offsets.data<const int32_t>().back() * groups * k.shape(2);
  const auto all = cpu::sequences(query_offsets, key_offsets, q.shape(0), k.shape(0));
  const BackwardOperands operands{dq, dk, dv, dy, y, logsumexp, q, k, v};
  visit_float(q.dtype(), [&]<class T>() {
    for (const Tensor* unseen : {&dk, &dv}) std::ranges::fill(unseen->data<T>().subspan(size_t(used)), T{});
    parallel_tasks(int64_t(all.size()) * groups,
                   [&](int64_t task) { HeadGradient<T>(operands, all[size_t(task / groups)], task % groups)(); });
  });
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
