#include "ops/rms_norm.h"

#include "ops/cpu/column_sums.h"
#include "ops/cpu/gains.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"
#include "ops/elementwise.h"
#include "ops/parameter_gradient.h"

namespace agon {

void RmsNorm::Forward::cpu(const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& gain,
                           double epsilon) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain);
    const T* const in = x.data<const T>().data();
    A* const statistics = inverse.data<A>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains](int64_t n) {
      statistics[n] = rows.rms_norm(out + n * width, in + n * width, gains.data(), A(epsilon), width);
    });
  });
}

void RmsNorm::Sum::cpu(const Tensor& sum, const Tensor& y, const Tensor& inverse, const Tensor& x,
                       const Tensor& residual, const Tensor& gain, double epsilon) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain);
    const T* const left = x.data<const T>().data();
    const T* const right = residual.data<const T>().data();
    A* const statistics = inverse.data<A>().data();
    T* const sums = sum.data<T>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains](int64_t n) {
      cpu::add_row(sums + n * width, left + n * width, right + n * width, width);
      statistics[n] = rows.rms_norm(out + n * width, sums + n * width, gains.data(), A(epsilon), width);
    });
  });
}

void RmsNorm::Input::cpu(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& inverse,
                         const Tensor& gain) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain);
    const T* const in = x.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    const A* const statistics = inverse.data<const A>().data();
    T* const out = dx.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains](int64_t n) {
      rows.rms_norm_backward(out + n * width, slope + n * width, in + n * width, gains.data(), statistics[n], width);
    });
  });
}

void RmsNorm::Gain::cpu(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& inverse) {
  visit_float(x.dtype(), [&]<class T>() {
    visit_float(dgain.dtype(), [&]<class G>() {
      using A = Accumulator<T>;
      const int64_t width = x.shape(-1);
      const T* const in = x.data<const T>().data();
      const T* const slope = dy.data<const T>().data();
      const A* const statistics = inverse.data<const A>().data();
      const auto& rows = cpu::row_kernels<T>();
      cpu::column_sums<A>(dgain.data<G>().data(), add, x.shape().rows(), width, [=, &rows](int64_t n, A* sums) {
        rows.add_gain(sums, slope + n * width, in + n * width, A(0), statistics[n], width);
      });
    });
  });
}

namespace {

void check_gain(const char* name, const Tensor& x, const Tensor& gain) {
  check(x.shape().rank() >= 1 && gain.size() == x.shape(-1) &&
            (gain.dtype() == x.dtype() || gain.dtype() == accumulator_dtype(x.dtype())),
        name, ": expected a gain of ", x.dtype(), " or f32 for each column of x ", x.shape(), ", got ", gain.dtype(),
        ' ', gain.shape());
}

Tensor recorded(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& inverse) {
  return record("rms_norm", {&x, &gain}, y, [x, gain, inverse](Gradients& g, const Tensor& dy) {
    if (g.wants(x)) {
      Tensor dx(x.shape(), x.dtype(), x.device());
      run<RmsNorm::Input>(x.device(), dx, dy, x, inverse, gain);
      g.add(x, dx);
    }
    give_gradient(g, gain,
                  [&](const Tensor& dgain, bool add) { run<RmsNorm::Gain>(x.device(), dgain, add, dy, x, inverse); });
  });
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& gain, double epsilon) {
  check_gain("rms_norm", x, gain);
  Tensor y(x.shape(), x.dtype(), x.device());
  Tensor inverse({x.shape().rows()}, accumulator_dtype(x.dtype()), x.device());
  run<RmsNorm::Forward>(x.device(), y, inverse, x, gain, epsilon);
  return recorded(y, x, gain, inverse);
}

Normed add_rms_norm(const Tensor& x, Tensor residual, const Tensor& gain, double epsilon) {
  check_alike("add_rms_norm", x, residual);
  check_gain("add_rms_norm", x, gain);
  // A new identity for the residual's block, or a block of its own.
  const Tensor sum = residual.unique() ? residual.detach() : Tensor(x.shape(), x.dtype(), x.device());
  Tensor y(x.shape(), x.dtype(), x.device());
  Tensor inverse({x.shape().rows()}, accumulator_dtype(x.dtype()), x.device());
  run<RmsNorm::Sum>(x.device(), sum, y, inverse, x, residual, gain, epsilon);
  record_add(x, residual, sum);
  return {sum, recorded(y, sum, gain, inverse)};
}

}  // namespace agon
