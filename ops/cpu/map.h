#pragma once
#include <algorithm>

#include "core/parallel.h"
#include "ops/elementwise.h"

namespace agon {

namespace cpu {

/// Elements a task of a parallel loop should have at least; a constant, so that pieces never depend on the thread
/// count.
inline constexpr int64_t kGrain = 16384;

/// Calls f(n) for each of `rows` rows of `width` elements, spread over the pool.
template <class F>
void each_row(int64_t rows, int64_t width, F&& f) {
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) f(n);
  });
}

/// sum = a + b, rounded: a row of what Add::Forward makes.
template <class T>
void add_row(T* sum, const T* a, const T* b, int64_t width) {
  for (int64_t i = 0; i < width; ++i) sum[i] = T(Add::Forward()(Accumulator<T>(a[i]), Accumulator<T>(b[i])));
}

}  // namespace cpu

template <class F>
void Unary<F>::cpu(const Tensor& y, const Tensor& x, const F& f) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    T* const out = y.data<T>().data();
    const T* const in = x.data<const T>().data();
    parallel_ranges(x.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = T(f(A(in[i])));
    });
  });
}

template <class F>
void Binary<F>::cpu(const Tensor& y, const Tensor& a, const Tensor& b, const F& f) {
  visit_float(a.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    T* const out = y.data<T>().data();
    const T* const left = a.data<const T>().data();
    const T* const right = b.data<const T>().data();
    parallel_ranges(a.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = T(f(A(left[i]), A(right[i])));
    });
  });
}

}  // namespace agon
