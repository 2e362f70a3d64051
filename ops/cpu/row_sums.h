#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

template <class T, class A = typename RowNumber<T>::type>
A dot(const T* a, const T* b, int64_t n) {
  return sum<A>(n, [=](auto at) { return load(a, at) * load(b, at); });
}

template <class T, class A = typename RowNumber<T>::type>
void scale(T* y, const T* x, A factor, int64_t n) {
  each_lanes(n, [=](auto at) { store(y, at, load(x, at) * all(factor, at)); });
}

template <class T, class A = typename RowNumber<T>::type>
A dot_scale(T* y, const T* a, const T* b, A factor, int64_t n) {
  return sum<A>(n, [=](auto at) {
    const auto v = load(a, at), product = v * load(b, at);
    store(y, at, v * all(factor, at));
    return product;
  });
}

template <class T, class A = typename RowNumber<T>::type>
void weighted_sum(T* y, const T* const* rows, const A* weight, int64_t count, int64_t n) {
  each_lanes(n, [=](auto at) {
    auto total = all(A(0), at);
    for (int64_t j = 0; j < count; ++j)
      total = total + (weight ? load(rows[j], at) * all(weight[j], at) : load(rows[j], at));
    store(y, at, total);
  });
}

template <class T, class A = typename RowNumber<T>::type>
void rotate(T* first, T* second, const T* a, const T* b, const A* cosine, const A* sine, A sign, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto u = load(a, at), v = load(b, at), c = load(cosine, at), s = all(sign, at) * load(sine, at);
    store(first, at, u * c - v * s);
    store(second, at, v * c + u * s);
  });
}

template <class A>
double square_sum(const A* x, int64_t n) {
  return sum<double>(n, [=](auto at) {
    const auto v = wide(load(x, at));
    return v * v;
  });
}

template <class A>
void adamw(A* w, A* first, A* second, const A* gradient, bf16* rounded, const UpdateNumbers<A>& c, A scale, A decay,
           int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto g = load(gradient, at) * all(scale, at), before = load(w, at);
    const auto m = all(c.beta1, at) * load(first, at) + all(c.rest1, at) * g;
    const auto v = all(c.beta2, at) * load(second, at) + all(c.rest2, at) * g * g;
    const auto step = m * all(c.correction1, at) / (root(v * all(c.correction2, at)) + all(c.epsilon, at));
    const auto after = before - all(c.rate, at) * (step + all(decay, at) * before);
    store(first, at, m);
    store(second, at, v);
    store(w, at, after);
    if constexpr (__is_same(A, float))
      if (rounded) store(rounded, at, after);
  });
}

}  // namespace
}  // namespace agon::cpu
