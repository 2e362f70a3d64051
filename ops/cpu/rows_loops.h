#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// The loops behind rows.h, for files compiled for one instruction set each.
namespace agon::cpu {
namespace {

template <class T>
using Number = typename RowNumber<T>::type;

template <class T>
void swiglu(T* y, const T* gate, const T* up, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto one = all(Number<T>(1), at), a = load(gate, at);
    store(y, at, a / (one + exp(-a)) * load(up, at));
  });
}

template <class T>
void swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto one = all(Number<T>(1), at), a = load(gate, at), b = load(up, at), d = load(dy, at);
    const auto s = one / (one + exp(-a));
    store(dgate, at, d * b * s * (one + a * (one - s)));
    store(dup, at, d * a * s);
  });
}

template <class T, class A = Number<T>>
A max_of(A start, const T* x, A factor, int64_t n) {
  return largest(start, n, [=](auto at) { return load(x, at) * all(factor, at); });
}

template <class T, class A = Number<T>>
A exp_of_row(A* p, const T* x, A factor, A top, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto e = exp(load(x, at) * all(factor, at) - all(top, at));
    store(p, at, e);
    return e;
  });
}

template <class A>
void exp_slopes(A* p, A* s, A factor, A top, A mean, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto by = all(factor, at), e = exp(load(p, at) * by - all(top, at));
    store(p, at, e);
    store(s, at, e * (load(s, at) - all(mean, at)) * by);
  });
}

template <class T, class A = Number<T>>
A dot(const T* a, const T* b, int64_t n) {
  return sum<A>(n, [=](auto at) { return load(a, at) * load(b, at); });
}

template <class T, class A = Number<T>>
void scale(T* y, const T* x, A factor, int64_t n) {
  each_lanes(n, [=](auto at) { store(y, at, load(x, at) * all(factor, at)); });
}

template <class T>
constexpr RowKernels<T> kernels() {
  return {
      .swiglu = swiglu<T>,
      .swiglu_backward = swiglu_backward<T>,
      .max = max_of<T>,
      .exp = exp_of_row<T>,
      .exp_slopes = exp_slopes<Number<T>>,
      .dot = dot<T>,
      .scale = scale<T>,
  };
}

}  // namespace
}  // namespace agon::cpu
