#include "ops/softmax.h"

#include "autograd/tape.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"

namespace agon {

void Softmax::Forward::cpu(const Tensor& y, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const int64_t width = x.shape(-1);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width,
                  [=, &rows](int64_t n) { rows.softmax(out + n * width, in + n * width, width); });
  });
}

void Softmax::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  visit_float(y.dtype(), [&]<class T>() {
    const int64_t width = y.shape(-1);
    const T* const value = y.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    T* const out = dx.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(y.shape().rows(), width, [=, &rows](int64_t n) {
      rows.softmax_backward(out + n * width, slope + n * width, value + n * width, width);
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
