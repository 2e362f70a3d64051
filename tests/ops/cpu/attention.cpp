#include "ops/cpu/attention_kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "ops/cpu/exp.h"
#include "ops/cpu/lanes.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;
using cpu::kAttentionSquare, cpu::kAttentionTile;

namespace {

template <class A>
using Numbers = std::vector<A>;

template <class T>
std::vector<T> draw(int64_t n, uint64_t seed) {
  const Tensor drawn = random({n}, seed, 1, DType::f32);
  std::vector<T> x;
  for (const float v : drawn.data<const float>()) x.push_back(T(v));
  return x;
}

/// Where column c of row i lies.
size_t place(int64_t i, int64_t c) {
  return size_t(c / kAttentionTile * kAttentionSquare + i * kAttentionTile + c % kAttentionTile);
}

/// A tile of drawn rows as `take` makes it, with NaN where nobody may look.
template <class T, class A = Accumulator<T>>
Numbers<A> rows(const cpu::AttentionKernels<T>& k, int64_t first, int64_t end, int64_t width, uint64_t seed) {
  Numbers<A> tile(size_t(cpu::attention_squares(width) * kAttentionSquare), std::numeric_limits<A>::quiet_NaN());
  const std::vector<T> x = draw<T>(kAttentionTile * width, seed);
  k.take(tile.data(), x.data(), width, first, end, width);
  return tile;
}
template <class T, class A = Accumulator<T>>
Numbers<A> turned(const cpu::AttentionKernels<T>& k, const Numbers<A>& tile, int64_t first, int64_t end,
                  int64_t width) {
  Numbers<A> to(tile.size(), std::numeric_limits<A>::quiet_NaN());
  k.turn(to.data(), tile.data(), first, end, width);
  return to;
}

/// Calls f(kernels) for every set of this processor.
template <class T, class F>
void each_set(F&& f) {
  for (int i = 0; const cpu::AttentionInstructions* set = cpu::attention_instructions(i); ++i) {
    INFO(std::string(set->name), " ", dtype_of<T>);
    if constexpr (std::is_same_v<T, float>)
      f(set->f32);
    else if constexpr (std::is_same_v<T, double>)
      f(set->f64);
    else
      f(set->half);
  }
}

/// Widths and tiles: whole ones, few queries within, few keys, on the diagonal and before it.
template <class A, class F>
void each_tile(F&& f) {
  for (const int64_t width : {3, 16, 40, 64, 80, 128})
    for (const bool diagonal : {false, true})
      for (const auto& [first, end, keys] :
           std::vector<std::array<int64_t, 3>>{{0, 64, 64}, {0, 13, 13}, {17, 18, 18}, {21, 50, 50}, {56, 64, 64}}) {
        CAPTURE(width);
        CAPTURE(diagonal);
        CAPTURE(first);
        f(cpu::AttentionTile<A>{.width = width,
                                .first = first,
                                .end = end,
                                .keys = diagonal ? keys : kAttentionTile,
                                .diagonal = diagonal,
                                .first_keys = false,
                                .first_queries = false,
                                .scale = A(0.3)});
      }
}
template <class A>
int64_t visible(const cpu::AttentionTile<A>& t, int64_t query) {
  return t.diagonal ? query + 1 : t.keys;
}

/// The chain of a score.
template <class A>
A score(const cpu::AttentionTile<A>& t, const Numbers<A>& query, const Numbers<A>& key, int64_t i, int64_t j) {
  A sum = 0;
  for (int64_t c = 0; c < t.width; ++c) sum = std::fma(key[place(j, c)], query[place(i, c)], sum);
  return sum;
}

}  // namespace

TEST_CASE_TEMPLATE("attention kernels: rows go in and out, and are turned", T, float, bf16, double) {
  using A = Accumulator<T>;
  each_set<T>([](const cpu::AttentionKernels<T>& k) {
    each_tile<A>([&](const cpu::AttentionTile<A>& t) {
      const int64_t n = t.end - t.first, stride = t.width + 3;
      const std::vector<T> from = draw<T>(n * stride, 1);
      Numbers<A> tile(size_t(cpu::attention_squares(t.width) * kAttentionSquare), A(7)), factor = draw<A>(64, 2);
      k.take(tile.data(), from.data(), stride, t.first, t.end, t.width);
      const Numbers<A> across = turned<T>(k, tile, t.first, t.end, t.width);
      const int64_t columns = (t.width + 15) / 16 * 16;
      bool same = true;
      for (int64_t i = t.first / 16 * 16; i < (t.end + 15) / 16 * 16; ++i)
        for (int64_t c = 0; c < columns; ++c) {
          const bool inside = i >= t.first && i < t.end && c < t.width;
          const A expected = inside ? A(from[size_t((i - t.first) * stride + c)]) : A(0);
          same &= tile[place(i, c)] == expected;
          same &= across[size_t(c * kAttentionTile + i)] == expected;
        }
      CHECK(same);
      std::vector<T> to(from.size(), T(9.f)), scaled = to, expected = to, expected_scaled = to;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t c = 0; c < t.width; ++c) {
          const size_t at = size_t(i * stride + c);
          expected[at] = from[at];
          expected_scaled[at] = T(A(from[at]) * factor[size_t(t.first + i)]);
        }
      k.give(to.data(), stride, tile.data(), nullptr, t.first, t.end, t.width);
      k.give(scaled.data(), stride, tile.data(), factor.data(), t.first, t.end, t.width);
      CHECK(std::memcmp(to.data(), expected.data(), to.size() * sizeof(T)) == 0);
      CHECK(std::memcmp(scaled.data(), expected_scaled.data(), to.size() * sizeof(T)) == 0);
    });
  });
}

TEST_CASE_TEMPLATE("attention kernels: every instruction set gives the bits of the loop number by number", A, float,
                   double) {
  each_set<A>([](const cpu::AttentionKernels<A>& k) {
    each_tile<A>([&](cpu::AttentionTile<A> t) {
      const auto queries = rows(k, t.first, t.end, t.width, 1), dy = rows(k, t.first, t.end, t.width, 2),
                 keys = rows(k, 0, t.keys, t.width, 3), values = rows(k, 0, t.keys, t.width, 4),
                 q = turned(k, queries, t.first, t.end, t.width), dy_turned = turned(k, dy, t.first, t.end, t.width);
      const Numbers<A> start = draw<A>(int64_t(keys.size()), 5), numbers = draw<A>(kAttentionTile, 6);
      Numbers<A> answer = start, top = numbers, sum(64, A(2)), shrink(64), scores(kAttentionSquare, std::nanf(""));
      k.attend(t, q.data(), keys.data(), values.data(), scores.data(),
               {answer.data(), top.data(), sum.data(), shrink.data()});
      bool same = true;
      for (int64_t i = t.first; i < t.end; ++i) {
        const int64_t n = visible(t, i), shared = t.diagonal ? i / 8 * 8 : n;
        Numbers<A> weight;
        A highest = numbers[size_t(i)];
        for (int64_t j = 0; j < n; ++j) {
          weight.push_back(score(t, queries, keys, i, j));
          highest = std::max(highest, weight.back() * t.scale);
        }
        for (A& w : weight) w = cpu::exp(w * t.scale - highest);
        const A less = cpu::exp(numbers[size_t(i)] - highest),
                total = A(2) * less + cpu::sum_lanes<A>(n, [&](int64_t j) { return weight[size_t(j)]; });
        same &= top[size_t(i)] == highest && sum[size_t(i)] == total;
        for (int64_t c = 0; c < t.width; ++c) {
          A y = start[place(i, c)] * less;
          for (int64_t j = 0; j < n; ++j) {
            const A w = weight[size_t(j)], v = values[place(j, c)];
            y = j < shared ? std::fma(w, v, y) : y + w * v;
          }
          same &= answer[place(i, c)] == y;
        }
      }
      CHECK(same);

      const Numbers<A> delta = draw<A>(kAttentionTile, 7);
      for (const bool first : {false, true}) {
        t.first_keys = t.first_queries = first;
        Numbers<A> weights(kAttentionSquare, std::nanf("")), slopes = weights, dq = start, dk = start, dv = start;
        k.slope(t, {queries.data(), q.data(), dy.data(), dy_turned.data(), keys.data(), values.data(), numbers.data(),
                    delta.data(), weights.data(), slopes.data(), dq.data(), dk.data(), dv.data()});
        Numbers<A> q_expected = start, k_expected = start, v_expected = start;
        for (int64_t c = 0; first && c < t.width; ++c) {
          for (int64_t i = t.first; i < t.end; ++i) q_expected[place(i, c)] = 0;
          for (int64_t j = 0; j < t.keys; ++j) k_expected[place(j, c)] = v_expected[place(j, c)] = 0;
        }
        for (int64_t i = t.first; i < t.end; ++i)
          for (int64_t j = 0; j < visible(t, i); ++j) {
            const A p = cpu::exp(score(t, queries, keys, i, j) * t.scale - numbers[size_t(i)]);
            const A s = p * (score(t, dy, values, i, j) - delta[size_t(i)]) * t.scale;
            for (int64_t c = 0; c < t.width; ++c) {
              q_expected[place(i, c)] = std::fma(s, keys[place(j, c)], q_expected[place(i, c)]);
              k_expected[place(j, c)] = std::fma(s, queries[place(i, c)], k_expected[place(j, c)]);
              v_expected[place(j, c)] = std::fma(p, dy[place(i, c)], v_expected[place(j, c)]);
            }
          }
        same = true;
        for (int64_t c = 0; c < t.width; ++c) {
          for (int64_t i = t.first; i < t.end; ++i) same &= dq[place(i, c)] == q_expected[place(i, c)];
          for (int64_t j = 0; j < t.keys; ++j)
            same &= dk[place(j, c)] == k_expected[place(j, c)] && dv[place(j, c)] == v_expected[place(j, c)];
        }
        CHECK(same);
      }
    });
  });
}
