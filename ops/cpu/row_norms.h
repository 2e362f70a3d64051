#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

template <class T, class A = typename RowNumber<T>::type>
A rms_norm(T* y, const T* x, const A* gain, A epsilon, int64_t n) {
  const A squares = sum<A>(n, [=](auto at) {
    const auto v = load(x, at);
    return v * v;
  });
  const A r = A(1) / root(squares / A(n) + epsilon);
  each_lanes(n, [=](auto at) { store(y, at, load(x, at) * all(r, at) * load(gain, at)); });
  return r;
}

template <class T, class A = typename RowNumber<T>::type>
void rms_norm_backward(T* dx, const T* dy, const T* x, const A* gain, A r, int64_t n) {
  const A dot = sum<A>(n, [=](auto at) { return load(dy, at) * load(gain, at) * load(x, at); });
  const A along = dot * r * r / A(n);
  each_lanes(
      n, [=](auto at) { store(dx, at, all(r, at) * (load(dy, at) * load(gain, at) - load(x, at) * all(along, at))); });
}

template <class T, class A = typename RowNumber<T>::type>
void layer_norm(T* y, A* mean_and_r, const T* x, const A* gain, const A* bias, A epsilon, int64_t n) {
  const A mean = sum<A>(n, [=](auto at) { return load(x, at); }) / A(n);
  const A squares = sum<A>(n, [=](auto at) {
    const auto v = load(x, at) - all(mean, at);
    return v * v;
  });
  const A r = A(1) / root(squares / A(n) + epsilon);
  mean_and_r[0] = mean;
  mean_and_r[1] = r;
  const auto scaled = [=](auto at) { return (load(x, at) - all(mean, at)) * all(r, at) * load(gain, at); };
  if (bias)
    each_lanes(n, [=](auto at) { store(y, at, scaled(at) + load(bias, at)); });
  else
    each_lanes(n, [=](auto at) { store(y, at, scaled(at)); });
}

template <class T, class A = typename RowNumber<T>::type>
void layer_norm_backward(T* dx, const T* dy, const T* x, const A* gain, A mean, A r, int64_t n) {
  const auto slope = [=](auto at) { return load(dy, at) * load(gain, at); };
  const auto normed = [=](auto at) { return (load(x, at) - all(mean, at)) * all(r, at); };
  const A even = sum<A>(n, slope) / A(n);
  const A along = sum<A>(n, [=](auto at) { return slope(at) * normed(at); }) / A(n);
  each_lanes(n,
             [=](auto at) { store(dx, at, all(r, at) * (slope(at) - all(even, at) - normed(at) * all(along, at))); });
}

template <class T, class A = typename RowNumber<T>::type>
void add_gain(A* sums, const T* dy, const T* x, A mean, A r, int64_t n) {
  each_lanes(n, [=](auto at) {
    store(sums, at, load(sums, at) + load(dy, at) * ((load(x, at) - all(mean, at)) * all(r, at)));
  });
}

}  // namespace
}  // namespace agon::cpu
