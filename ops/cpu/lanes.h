#pragma once
#include <cstdint>

namespace agon::cpu {

/// Reductions of n terms in an order that is fixed and that vector registers can follow: term i goes to lane i mod 16,
/// the lanes are folded in halves at the end. `term(i)` is inlined.
inline constexpr int64_t kLanes = 16;

template <class A, class F, class Join>
inline A fold_lanes(A start, int64_t n, F&& term, Join&& join) {
  A lane[kLanes];
  for (A& l : lane) l = start;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lane[j] = join(lane[j], term(i + j));
  for (int64_t j = 0; i + j < n; ++j) lane[j] = join(lane[j], term(i + j));
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) lane[j] = join(lane[j], lane[j + half]);
  return lane[0];
}

/// The sum of term(0) ... term(n - 1); 0 for none.
template <class A, class F>
inline A sum_lanes(int64_t n, F&& term) {
  return fold_lanes(A(0), n, term, [](A a, A b) { return a + b; });
}

/// The largest of `start` and the terms. A NaN among the terms may be passed over.
template <class A, class F>
inline A max_lanes(A start, int64_t n, F&& term) {
  return fold_lanes(start, n, term, [](A a, A b) { return b > a ? b : a; });
}

}  // namespace agon::cpu
