#include "ops/swiglu.h"

#include "autograd/tape.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/map.h"

namespace agon {

void Swiglu::Forward::cpu(const Tensor& y, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = y.shape(-1);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    cpu::each_row(y.shape().rows(), width, [=](int64_t n) {
      const T *const gate = in + n * 2 * width, *const up = gate + width;
      T* const row = out + n * width;
      for (int64_t i = 0; i < width; ++i) {
        const A a = A(gate[i]);
        row[i] = T(a / (A(1) + cpu::exp(-a)) * A(up[i]));
      }
    });
  });
}

void Swiglu::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = dy.shape(-1);
    const T* const in = x.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    T* const out = dx.data<T>().data();
    cpu::each_row(dy.shape().rows(), width, [=](int64_t n) {
      const T *const gate = in + n * 2 * width, *const up = gate + width, *const d = slope + n * width;
      T *const dgate = out + n * 2 * width, *const dup = dgate + width;
      for (int64_t i = 0; i < width; ++i) {
        const A a = A(gate[i]), s = A(1) / (A(1) + cpu::exp(-a));
        dgate[i] = T(A(d[i]) * A(up[i]) * s * (A(1) + a * (A(1) - s)));
        dup[i] = T(A(d[i]) * a * s);
      }
    });
  });
}

Tensor swiglu(const Tensor& x) {
  check(x.shape().rank() >= 1 && x.shape(-1) % 2 == 0, "swiglu: the last axis must hold [gate | up], got ", x.shape());
  Tensor y(x.shape().with(-1, x.shape(-1) / 2), x.dtype(), x.device());
  run<Swiglu::Forward>(x.device(), y, x);
  return record("swiglu", {&x}, y, [x](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Swiglu::Backward>(x.device(), dx, dy, x);
    g.add(x, dx);
  });
}

}  // namespace agon
