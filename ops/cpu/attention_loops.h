#pragma once
#include "ops/cpu/attention_products.h"

// The loops behind attention_kernels.h, for files compiled for one instruction set each; see attention_products.h.
namespace agon::cpu {
namespace {

constexpr int64_t kTile = kAttentionTile;
using Sixteen = Whole<kLanes>;

/// The 16-fold that holds [begin, end).
inline Range whole_lanes(int64_t begin, int64_t end) {
  return {begin / kLanes * kLanes, (end + kLanes - 1) / kLanes * kLanes};
}

/// Calls f(where among the numbers of a row, where it starts in row 0 of its square) for 16 columns after the other.
template <class F>
[[gnu::always_inline]] inline void each_sixteen(int64_t width, F&& f) {
  int64_t at = 0;
  for (; at + kLanes <= width; at += kLanes) f(Sixteen{at}, at / kTile * kAttentionSquare + at % kTile);
  if (at < width) f(Rest{at, width - at}, at / kTile * kAttentionSquare + at % kTile);
}

template <class T, class A = typename RowNumber<T>::type>
void take_rows(A* to, const T* from, int64_t stride, int64_t first, int64_t end, int64_t width) {
  const Range rows = whole_lanes(first, end);
  for (int64_t i = rows.begin; i < rows.end; ++i)
    each_sixteen(width, [=](auto at, int64_t square) {
      __builtin_prefetch(reinterpret_cast<const typename StorageOf<T>::type*>(from) + at.at + (i - first + 16) * stride);
      store(to + square, Sixteen{i * kTile},
            i < first || i >= end ? all(A(0), Sixteen{}) : load(from, moved(at, (i - first) * stride)));
    });
}

template <class T, class A = typename RowNumber<T>::type>
void give_rows(T* to, int64_t stride, const A* from, const A* factor, int64_t first, int64_t end, int64_t width) {
  for (int64_t i = first; i < end; ++i)
    each_sixteen(width, [=](auto at, int64_t square) {
      __builtin_prefetch(reinterpret_cast<typename StorageOf<T>::type*>(to) + at.at + (i - first + 16) * stride, 1);
      const auto row = load(from + square, Sixteen{i * kTile});
      store(to, moved(at, (i - first) * stride), factor ? row * all(factor[i], Sixteen{}) : row);
    });
}

/// to [16, 16] = from [16, 16], rows of squares.
template <class A>
void turn_sixteen(A* to, const A* from) {
  for (int64_t i = 0; i < kLanes; ++i)
    for (int64_t j = 0; j < kLanes; ++j) to[j * kTile + i] = from[i * kTile + j];
}

template <class A>
void turn(A* to, const A* from, int64_t first, int64_t end, int64_t width) {
  const Range rows = whole_lanes(first, end);
  each_sixteen(width, [=](auto at, int64_t square) {
    A* const columns = to + at.at / kTile * kAttentionSquare + at.at % kTile * kTile;
    for (int64_t i = rows.begin; i < rows.end; i += kLanes) turn_sixteen(columns + i, from + square + i * kTile);
  });
}

/// Sixteen queries' numbers of M keys.
template <class A, int M>
using Numbers = Lanes<A, M * kLanes>;
template <class A>
constexpr int kParts = Lanes<A, kLanes>::kParts;

/// Calls f(key, part of that key's sixteen) for the parts of Numbers.
template <class A, int M, class F>
[[gnu::always_inline]] inline Numbers<A, M> each_key(F&& f) {
  return each_part<A, M * kLanes>([&](int i) { return f(i / kParts<A>, i % kParts<A>); });
}
/// Keys from j on, of the queries from `column` on.
template <class A, int M>
[[gnu::always_inline]] inline Numbers<A, M> load_keys(const A* column, int64_t j) {
  return each_key<A, M>(
      [=](int key, int part) { return load_register(column + (j + key) * kTile + part * Lanes<A, kLanes>::kNumbers); });
}
template <class A, int M>
[[gnu::always_inline]] inline void store_keys(A* column, int64_t j, const Numbers<A, M>& v) {
#pragma GCC unroll 8
  for (int i = 0; i < Numbers<A, M>::kParts; ++i)
    __builtin_memcpy(column + (j + i / kParts<A>)*kTile + i % kParts<A> * Numbers<A, M>::kNumbers, &v.part[i],
                     kRegisterBytes);
}
/// What each key of M is given.
template <class A, int M>
[[gnu::always_inline]] inline Numbers<A, M> repeat(const Lanes<A, kLanes>& v) {
  return each_key<A, M>([&](int, int part) { return v.part[part]; });
}

/// What hides, on the diagonal, a key from the queries before it.
template <class A>
struct Mask {
  Lanes<A, kLanes> place;  // 0 ... 15

  Mask() {
    A numbers[kLanes];
    for (int i = 0; i < kLanes; ++i) numbers[i] = A(i);
    place = load(numbers, Sixteen{0});
  }
  /// v, but `behind` in the lanes before `place` of the first key, before the next one of the next key and so on.
  template <int M>
  [[gnu::always_inline]] Numbers<A, M> hide(const Numbers<A, M>& v, int64_t at, A behind) const {
    return each_key<A, M>([&](int key, int part) {
      const auto from = A(at + key) - Register<A>{}, other = behind - Register<A>{};
      return place.part[part] >= from ? v.part[key * kParts<A> + part] : other;
    });
  }
};

/// The products [keys, queries] of keys (or values) and turned queries (or slopes). On the diagonal, sixteen keys are
/// multiplied with the queries from the first of them on.
template <class A>
void multiply_keys(const AttentionTile<A>& t, const A* keys, const A* turned, A* c) {
  const Range lanes = whole_lanes(t.first, t.end);
  const int64_t at_once = t.diagonal ? kLanes : kTile;
  for (int64_t key = 0; key < t.keys; key += at_once) {
    const Range rows{key, key + at_once < t.keys ? key + at_once : t.keys};
    const Range seen{t.diagonal && key > lanes.begin ? key : lanes.begin, lanes.end};
    for (int64_t square = 0; square < attention_squares(t.width); ++square) {
      const int64_t rest = t.width - square * kTile, from = square * kAttentionSquare;
      multiply<A, false>({keys + from, turned + from, c, {0, rest < kTile ? rest : kTile}, square > 0}, rows, seen);
    }
  }
}

/// c [rows, d] grows by the product with b [.., d].
template <class A, bool turned>
void multiply_columns(int64_t width, Product<A> p, Range rows) {
  for (int64_t square = 0; square < attention_squares(width); ++square) {
    const int64_t rest = width - square * kTile;
    multiply<A, turned>(p, rows, whole_lanes(0, rest < kTile ? rest : kTile));
    p.b += kAttentionSquare;
    p.c += kAttentionSquare;
  }
}

/// Calls f(first of sixteen queries, how many keys they see, first key that some of them do not).
template <class A, class F>
void each_queries(const AttentionTile<A>& t, F&& f) {
  const Range lanes = whole_lanes(t.first, t.end);
  for (int64_t i = lanes.begin; i < lanes.end; i += kLanes)
    f(i, t.diagonal && i + kLanes < t.keys ? i + kLanes : t.keys, t.diagonal ? i : t.keys);
}

/// Keys at once: four registers of f32, whose chains of instructions do not wait for each other.
constexpr int kKeys = kWide / kLanes > 0 ? kWide / kLanes : 1;
template <int M>
struct AtOnce {
  static constexpr int kKeys = M;
};
/// Calls f(first key, AtOnce how many) for all keys.
template <class F>
[[gnu::always_inline]] inline void each_keys(int64_t keys, F&& f) {
  int64_t j = 0;
  for (; j + kKeys <= keys; j += kKeys) f(j, AtOnce<kKeys>{});
  if constexpr (kKeys > 1)
    for (; j < keys; ++j) f(j, AtOnce<1>{});
}

/// Turns the scores of sixteen queries, from the i-th on, into weights relative to the largest so far. The sums are
/// those of ops/cpu/lanes.h over the keys.
template <class A>
void weigh(const AttentionTile<A>& t, A* scores, const AttentionSoftmax<A>& s) {
  const Mask<A> mask;
  each_queries(t, [&](int64_t i, int64_t keys, int64_t mixed) {
    A* const column = scores + i;
    Lanes<A, kLanes> raw[kKeys];
    for (auto& r : raw) r = all(A(-__builtin_inf()), Sixteen{});
    each_keys(keys, [&]<int M>(int64_t j, AtOnce<M>) {
      auto score = load_keys<A, M>(column, j);
      if (j + M > mixed) score = mask.template hide<M>(score, j - i, A(-__builtin_inf()));
#pragma GCC unroll 4
      for (int key = 0; key < M; ++key)
        raw[key] = larger(raw[key], each_part<A, kLanes>([&](int p) { return score.part[key * kParts<A> + p]; }));
    });
    for (int key = 1; key < kKeys; ++key) raw[0] = larger(raw[0], raw[key]);
    const auto before = load(s.top, Sixteen{i}), top = larger(before, raw[0] * all(t.scale, Sixteen{}));
    A sums[kLanes * kLanes];  // of the keys j mod 16, for each query
    for (int64_t lane = 0; lane < kLanes; ++lane) store(sums, Sixteen{lane * kLanes}, all(A(0), Sixteen{}));
    each_keys(keys, [&]<int M>(int64_t j, AtOnce<M>) {
      auto weight = exp(load_keys<A, M>(column, j) * all(t.scale, Whole<M * kLanes>{}) - repeat<A, M>(top));
      if (j + M > mixed) weight = mask.template hide<M>(weight, j - i, A(0));
      store_keys<A, M>(column, j, weight);
      const Whole<M * kLanes> lanes{j % kLanes * kLanes};
      store(sums, lanes, load(sums, lanes) + weight);
    });
    for (int64_t half = kLanes / 2; half > 0; half /= 2)
      for (int64_t lane = 0; lane < half; ++lane) {
        const Sixteen at{lane * kLanes}, other{(lane + half) * kLanes};
        store(sums, at, load(sums, at) + load(sums, other));
      }
    const auto shrink = exp(before - top);
    store(s.shrink, Sixteen{i}, shrink);
    store(s.sum, Sixteen{i}, load(s.sum, Sixteen{i}) * shrink + load(sums, Sixteen{0}));
    store(s.top, Sixteen{i}, top);
  });
}

template <class A>
void attend(const AttentionTile<A>& t, const A* queries_turned, const A* keys, const A* values, A* scores,
            const AttentionSoftmax<A>& s) {
  multiply_keys(t, keys, queries_turned, scores);
  weigh(t, scores, s);
  Product<A> p{scores, values, s.answer, {0, t.keys}, !t.first_keys, s.shrink};
  if (!t.diagonal) return multiply_columns<A, true>(t.width, p, {t.first, t.end});
  // Rows see different numbers of keys. A strip of rows, cut by position as tiles are, takes those that all of it sees,
  // then each row its own few: by plain products and sums, so that a strip's last row is no special case.
  for (int64_t strip = t.first / kRows * kRows; strip < t.end; strip += kRows) {
    p.depth.end = strip;
    if (strip >= t.first && strip + kRows <= t.end) {
      p.plain = kRows, p.head = 1;
      multiply_columns<A, true>(t.width, p, {strip, strip + kRows});
      continue;
    }
    for (int64_t row = strip < t.first ? t.first : strip; row < strip + kRows && row < t.end; ++row) {
      p.plain = p.head = row - strip + 1;
      multiply_columns<A, true>(t.width, p, {row, row + 1});
    }
  }
}

/// P and dS of the scores and the slopes of the weights, which they replace; 0 where a query does not see a key.
template <class A>
void make_slopes(const AttentionTile<A>& t, const AttentionSlopes<A>& o) {
  const Mask<A> mask;
  each_queries(t, [&](int64_t i, int64_t keys, int64_t mixed) {
    const auto logsumexp = load(o.logsumexp, Sixteen{i}), delta = load(o.delta, Sixteen{i});
    A *const weights = o.weights + i, *const slopes = o.slopes + i;
    each_keys(keys, [&]<int M>(int64_t j, AtOnce<M>) {
      const auto scale = all(t.scale, Whole<M * kLanes>{});
      auto weight = exp(load_keys<A, M>(weights, j) * scale - repeat<A, M>(logsumexp));
      auto slope = weight * (load_keys<A, M>(slopes, j) - repeat<A, M>(delta)) * scale;
      if (j + M > mixed)
        weight = mask.template hide<M>(weight, j - i, A(0)), slope = mask.template hide<M>(slope, j - i, A(0));
      store_keys<A, M>(weights, j, weight);
      store_keys<A, M>(slopes, j, slope);
    });
  });
}

template <class A>
void slope(const AttentionTile<A>& t, const AttentionSlopes<A>& o) {
  multiply_keys(t, o.keys, o.queries_turned, o.weights);
  multiply_keys(t, o.values, o.dy_turned, o.slopes);
  make_slopes(t, o);
  const auto later = [](int64_t a, int64_t b) { return a > b ? a : b; };
  const auto earlier = [](int64_t a, int64_t b) { return a < b ? a : b; };
  // On the diagonal eight keys meet only the queries from the first of them on, eight queries the keys up to their
  // last.
  const int64_t at_once = t.diagonal ? kRows : kTile;
  for (int64_t key = 0; key < t.keys; key += at_once) {
    const Range rows{key, earlier(key + at_once, t.keys)}, seen{t.diagonal ? later(key, t.first) : t.first, t.end};
    multiply_columns<A, false>(t.width, {o.weights, o.dy, o.dv, seen, !t.first_queries}, rows);
    multiply_columns<A, false>(t.width, {o.slopes, o.queries, o.dk, seen, !t.first_queries}, rows);
  }
  for (int64_t i = t.first; i < t.end;) {
    const int64_t next = earlier(t.end, (i / at_once + 1) * at_once);
    multiply_columns<A, true>(
        t.width, {o.slopes, o.keys, o.dq, {0, t.diagonal ? earlier(next, t.keys) : t.keys}, !t.first_keys}, {i, next});
    i = next;
  }
}

template <class T>
constexpr AttentionKernels<T> attention_kernels_of() {
  using A = typename RowNumber<T>::type;
  return {.take = take_rows<T>, .give = give_rows<T>, .turn = turn<A>, .attend = attend<A>, .slope = slope<A>};
}

}  // namespace
}  // namespace agon::cpu
