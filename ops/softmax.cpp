#include "ops/softmax.h"

#include <algorithm>
#include <limits>

#include "autograd/tape.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/lanes.h"
#include "ops/cpu/map.h"

namespace agon {

void Softmax::Forward::cpu(const Tensor& y, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    cpu::each_row(x.shape().rows(), width, [=](int64_t n) {
      const T* const row = in + n * width;
      T* const result = out + n * width;
      const A top = cpu::max_lanes<A>(-std::numeric_limits<A>::infinity(), width, [=](int64_t i) { return A(row[i]); });
      // Twice the exponential rather than a buffer: the sum must not see the rounding to T.
      const A inverse = A(1) / cpu::sum_lanes<A>(width, [=](int64_t i) { return cpu::exp(A(row[i]) - top); });
      for (int64_t i = 0; i < width; ++i) result[i] = T(cpu::exp(A(row[i]) - top) * inverse);
    });
  });
}

void Softmax::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  visit_float(y.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = y.shape(-1);
    const T* const value = y.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    T* const out = dx.data<T>().data();
    cpu::each_row(y.shape().rows(), width, [=](int64_t n) {
      const T *const p = value + n * width, *const d = slope + n * width;
      T* const result = out + n * width;
      // Slopes are taken from that of the largest p: where p is nearly 1 the difference to the mean would cancel.
      const A base = A(d[std::max_element(p, p + width, [](T a, T b) { return A(a) < A(b); }) - p]);
      const A mean = cpu::sum_lanes<A>(width, [=](int64_t i) { return A(p[i]) * (A(d[i]) - base); });
      for (int64_t i = 0; i < width; ++i) result[i] = T(A(p[i]) * (A(d[i]) - base - mean));
    });
  });
}

Tensor softmax(const Tensor& x) {
  check(x.shape().rank() >= 1, "softmax: expected an axis to go over, got ", x.shape());
  Tensor y(x.shape(), x.dtype(), x.device());
  run<Softmax::Forward>(x.device(), y, x);
  return record("softmax", {&x}, y, [x = x.without_data(), y](Gradients& g, const Tensor& dy) {
    Tensor dx(y.shape(), y.dtype(), y.device());
    run<Softmax::Backward>(y.device(), dx, dy, y);
    g.add(x, dx);
  });
}

}  // namespace agon
