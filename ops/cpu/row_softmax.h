#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

template <class T, class A = typename RowNumber<T>::type>
A max_of(A start, const T* x, A factor, int64_t n) {
  return largest(start, n, [=](auto at) { return load(x, at) * all(factor, at); });
}

template <class T, class A = typename RowNumber<T>::type>
A exp_of(A* p, const T* x, A factor, A top, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto e = exp(load(x, at) * all(factor, at) - all(top, at));
    store(p, at, e);
    return e;
  });
}

template <class T, class A = typename RowNumber<T>::type>
A exp_sum(const T* x, A top, int64_t n) {
  return sum<A>(n, [=](auto at) { return exp(load(x, at) - all(top, at)); });
}

template <class T, class A = typename RowNumber<T>::type>
void exp_scaled(T* y, const T* x, A top, A inverse, A factor, int64_t n) {
  each_lanes(n, [=](auto at) { store(y, at, exp(load(x, at) - all(top, at)) * all(inverse, at) * all(factor, at)); });
}

template <class T, class A = typename RowNumber<T>::type>
void softmax(T* y, const T* x, int64_t n) {
  const A top = largest(A(-__builtin_inf()), n, [=](auto at) { return load(x, at); });
  if constexpr (__is_same(T, A)) {
    const A inverse = A(1) / exp_of(y, x, A(1), top, n);
    each_lanes(n, [=](auto at) { store(y, at, load(y, at) * all(inverse, at)); });
  } else {  // the sum must not see the rounding
    exp_scaled(y, x, top, A(1) / exp_sum(x, top, n), A(1), n);
  }
}

template <class T, class A = typename RowNumber<T>::type>
void softmax_backward(T* dx, const T* dy, const T* y, int64_t n) {
  if (n == 0) return;
  // Slopes are taken from that of the largest y: where y is nearly 1 the difference to the mean would cancel.
  const A top = largest(A(-1), n, [=](auto at) { return load(y, at); });
  int64_t place = 0;
  while (place < n - 1 && number(y, place) != top) ++place;
  const A base = number(dy, place);
  const A mean = sum<A>(n, [=](auto at) { return load(y, at) * (load(dy, at) - all(base, at)); });
  each_lanes(n, [=](auto at) { store(dx, at, load(y, at) * (load(dy, at) - all(base, at) - all(mean, at))); });
}

}  // namespace
}  // namespace agon::cpu
