#pragma once
#include "ops/cpu/row_activations.h"

// Sums over an expert's answer and their slopes. Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

/// log(1 + exp(-a)) for a >= 0: with y = exp(-a) and s = y / (2 + y), at most 1/3, it is 2 artanh(s), whose series to
/// s^15 is right to 1e-8 of it.
template <int K>
[[gnu::always_inline]] inline Lanes<float, K> log1p_exp_minus(const Lanes<float, K>& a) {
  const auto c = [](float v) { return all(v, Whole<K>{}); };
  const auto y = exp(-a), s = y / (c(2) + y), q = s * s;
  auto p = c(2.f / 15);
  p = p * q + c(2.f / 13);
  p = p * q + c(2.f / 11);
  p = p * q + c(2.f / 9);
  p = p * q + c(2.f / 7);
  p = p * q + c(2.f / 5);
  p = p * q + c(2.f / 3);
  p = p * q + c(2);
  return p * s;
}
template <int K>
inline Lanes<double, K> log1p_exp_minus(const Lanes<double, K>& a) {
  Lanes<double, K> r;
  for (int i = 0; i < Lanes<double, K>::kParts; ++i)
    for (int j = 0; j < Lanes<double, K>::kNumbers; ++j) r.part[i][j] = __builtin_log1p(__builtin_exp(-a.part[i][j]));
  return r;
}

template <class T, class A = typename RowNumber<T>::type>
A softplus_sum(const T* x, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto v = load(x, at), none = all(A(0), at);
    // A NaN stays one: the logarithm's.
    return larger(none, v) + log1p_exp_minus(larger(v, -v));
  });
}

template <class T, class A = typename RowNumber<T>::type>
A silu_sum(const T* x, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto v = load(x, at);
    return v / (all(A(1), at) + exp(-v));
  });
}

template <class T, class A = typename RowNumber<T>::type>
A relu_sum(const T* x, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto v = load(x, at);
    return larger(v, all(A(0), at));  // a NaN stays
  });
}

template <class T, class A = typename RowNumber<T>::type>
void softplus_slopes(T* dx, const T* x, A factor, int64_t n) {
  each_lanes(n, [=](auto at) { store(dx, at, all(factor, at) / (all(A(1), at) + exp(-load(x, at)))); });
}

template <class T, class A = typename RowNumber<T>::type>
void silu_slopes(T* dx, const T* x, A factor, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto v = load(x, at), one = all(A(1), at), s = one / (one + exp(-v));
    store(dx, at, all(factor, at) * (s * (one + v * (one - s))));
  });
}

}  // namespace
}  // namespace agon::cpu
