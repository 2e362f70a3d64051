#include "ops/swiglu.h"

#include "autograd/tape.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"

namespace agon {

void Swiglu::Forward::cpu(const Tensor& y, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const int64_t width = y.shape(-1);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(y.shape().rows(), width, [=, &rows](int64_t n) {
      const T* const gate = in + n * 2 * width;
      rows.swiglu(out + n * width, gate, gate + width, width);
    });
  });
}

void Swiglu::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const int64_t width = dy.shape(-1);
    const T* const in = x.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    T* const out = dx.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(dy.shape().rows(), width, [=, &rows](int64_t n) {
      const T* const gate = in + n * 2 * width;
      T* const dgate = out + n * 2 * width;
      rows.swiglu_backward(dgate, dgate + width, slope + n * width, gate, gate + width, width);
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
