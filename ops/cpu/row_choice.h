#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// The largest of many rows at once, a row in each lane. Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

template <class A>
struct KeyOf {
  using type = int32_t;
};
template <>
struct KeyOf<double> {
  using type = int64_t;
};

/// Whole numbers in the order of v; both zeros are one, a NaN is below everything, the least whole number below that.
template <class A, int K>
[[gnu::always_inline]] inline Lanes<typename KeyOf<A>::type, K> keys(const Lanes<A, K>& v) {
  using I = typename KeyOf<A>::type;
  constexpr I kLeast = I(I(1) << (sizeof(I) * 8 - 1));
  return each_part<I, K>([&](int i) {
    const Register<A> one_zero = v.part[i] + A(0);
    const Register<I> bits = Register<I>(one_zero);
    return v.part[i] == v.part[i] ? bits ^ ((bits >> (sizeof(I) * 8 - 1)) & I(~kLeast)) : Register<I>{} + (kLeast + 1);
  });
}

/// Every row's best so far, sorted, and one more number after the other: those it beats move down by one.
template <class A>
void top_k(int32_t* index, const A* x, int64_t rows, int64_t n, int64_t k, A* space) {
  using I = typename KeyOf<A>::type;
  using L = Lanes<I, kLanes>;
  constexpr Whole<kLanes> here{0};
  A* const column = space;  // [n, lanes]
  I* const best = reinterpret_cast<I*>(space + n * kLanes);
  I* const place = best + k * kLanes;
  for (int64_t first = 0; first < rows; first += kLanes) {
    const int64_t some = rows - first < kLanes ? rows - first : kLanes;
    for (int64_t r = 0; r < kLanes; ++r)
      for (int64_t e = 0; e < n; ++e) column[e * kLanes + r] = r < some ? x[(first + r) * n + e] : A(0);
    for (int64_t e = 0; e < n; ++e) {
      const L more = keys(load(column + e * kLanes, here));
      L key = more, at = all(I(e), here);  // what moves into the next place
      const int64_t kept = e < k ? e : k;
      for (int64_t j = 0; j < kept; ++j) {
        const L other = load(best + j * kLanes, here), there = load(place + j * kLanes, here);
        L kept_key, kept_at;
#pragma GCC unroll 8
        for (int i = 0; i < L::kParts; ++i) {
          const auto beaten = more.part[i] > other.part[i];
          kept_key.part[i] = beaten ? key.part[i] : other.part[i];
          kept_at.part[i] = beaten ? at.part[i] : there.part[i];
          key.part[i] = beaten ? other.part[i] : key.part[i];
          at.part[i] = beaten ? there.part[i] : at.part[i];
        }
        store(best + j * kLanes, here, kept_key);
        store(place + j * kLanes, here, kept_at);
      }
      if (e >= k) continue;
      store(best + e * kLanes, here, key);
      store(place + e * kLanes, here, at);
    }
    for (int64_t r = 0; r < some; ++r)
      for (int64_t j = 0; j < k; ++j) index[(first + r) * k + j] = int32_t(place[j * kLanes + r]);
  }
}

}  // namespace
}  // namespace agon::cpu
