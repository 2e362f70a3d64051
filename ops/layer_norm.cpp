#include "ops/layer_norm.h"

#include "ops/cpu/column_sums.h"
#include "ops/cpu/gains.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"
#include "ops/elementwise.h"
#include "ops/parameter_gradient.h"

namespace agon {

void LayerNorm::Forward::cpu(const Tensor& y, const Tensor& statistics, const Tensor& x, const Tensor& gain,
                             const Tensor& bias, double epsilon) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain), biases(bias);
    const T* const in = x.data<const T>().data();
    A* const saved = statistics.data<A>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains, &biases](int64_t n) {
      rows.layer_norm(out + n * width, saved + 2 * n, in + n * width, gains.data(), biases.data(), A(epsilon), width);
    });
  });
}

void LayerNorm::Sum::cpu(const Tensor& sum, const Tensor& y, const Tensor& statistics, const Tensor& x,
                         const Tensor& residual, const Tensor& gain, const Tensor& bias, double epsilon) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain), biases(bias);
    const T* const left = x.data<const T>().data();
    const T* const right = residual.data<const T>().data();
    A* const saved = statistics.data<A>().data();
    T* const sums = sum.data<T>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains, &biases](int64_t n) {
      T* const row = sums + n * width;
      cpu::add_row(row, left + n * width, right + n * width, width);
      rows.layer_norm(out + n * width, saved + 2 * n, row, gains.data(), biases.data(), A(epsilon), width);
    });
  });
}

void LayerNorm::Input::cpu(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& statistics,
                           const Tensor& gain) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const cpu::Gains<A> gains(gain);
    const T* const in = x.data<const T>().data();
    const T* const slope = dy.data<const T>().data();
    const A* const saved = statistics.data<const A>().data();
    T* const out = dx.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape().rows(), width, [=, &rows, &gains](int64_t n) {
      rows.layer_norm_backward(out + n * width, slope + n * width, in + n * width, gains.data(), saved[2 * n],
                               saved[2 * n + 1], width);
    });
  });
}

void LayerNorm::Gain::cpu(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& statistics) {
  visit_float(x.dtype(), [&]<class T>() {
    visit_float(dgain.dtype(), [&]<class G>() {
      using A = Accumulator<T>;
      const int64_t width = x.shape(-1);
      const T* const in = x.data<const T>().data();
      const T* const slope = dy.data<const T>().data();
      const A* const saved = statistics.data<const A>().data();
      const auto& rows = cpu::row_kernels<T>();
      cpu::column_sums<A>(dgain.data<G>().data(), add, x.shape().rows(), width, [=, &rows](int64_t n, A* sums) {
        rows.add_gain(sums, slope + n * width, in + n * width, saved[2 * n], saved[2 * n + 1], width);
      });
    });
  });
}

void LayerNorm::Bias::cpu(const Tensor& dbias, bool add, const Tensor& dy) {
  visit_float(dy.dtype(), [&]<class T>() {
    visit_float(dbias.dtype(), [&]<class G>() {
      using A = Accumulator<T>;
      const int64_t width = dy.shape(-1);
      const T* const slope = dy.data<const T>().data();
      cpu::column_sums<A>(dbias.data<G>().data(), add, dy.shape().rows(), width, [=](int64_t n, A* sums) {
        for (int64_t i = 0; i < width; ++i) sums[i] += A(slope[n * width + i]);
      });
    });
  });
}

namespace {

void check_gain(const char* name, const Tensor& x, const Tensor& gain, const Tensor& bias) {
  check(x.shape().rank() >= 1 && gain.size() == x.shape(-1) &&
            (!bias || (bias.size() == gain.size() && bias.dtype() == gain.dtype())) &&
            (gain.dtype() == x.dtype() || gain.dtype() == accumulator_dtype(x.dtype())),
        name, ": expected gain and bias of ", x.dtype(), " or both f32 for each column of x ", x.shape(), ", got gain ",
        gain.dtype(), ' ', gain.shape(), " and bias ", bias.dtype(), ' ', bias.shape());
}

Tensor recorded(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& bias, const Tensor& statistics) {
  return record("layer_norm", {&x, &gain, &bias}, y, [x, gain, bias, statistics](Gradients& g, const Tensor& dy) {
    if (g.wants(x)) {
      Tensor dx(x.shape(), x.dtype(), x.device());
      run<LayerNorm::Input>(x.device(), dx, dy, x, statistics, gain);
      g.add(x, dx);
    }
    give_gradient(g, gain, [&](const Tensor& dgain, bool add) {
      run<LayerNorm::Gain>(x.device(), dgain, add, dy, x, statistics);
    });
    give_gradient(g, bias, [&](const Tensor& dbias, bool add) { run<LayerNorm::Bias>(x.device(), dbias, add, dy); });
  });
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon) {
  check_gain("layer_norm", x, gain, bias);
  Tensor y(x.shape(), x.dtype(), x.device());
  Tensor statistics({x.shape().rows(), 2}, accumulator_dtype(x.dtype()), x.device());
  run<LayerNorm::Forward>(x.device(), y, statistics, x, gain, bias, epsilon);
  return recorded(y, x, gain, bias, statistics);
}

Normed add_layer_norm(const Tensor& x, Tensor residual, const Tensor& gain, const Tensor& bias, double epsilon) {
  check_alike("add_layer_norm", x, residual);
  check_gain("add_layer_norm", x, gain, bias);
  // A new identity for the residual's block, or a block of its own.
  const Tensor sum = residual.unique() ? residual.detach() : Tensor(x.shape(), x.dtype(), x.device());
  Tensor y(x.shape(), x.dtype(), x.device());
  Tensor statistics({x.shape().rows(), 2}, accumulator_dtype(x.dtype()), x.device());
  run<LayerNorm::Sum>(x.device(), sum, y, statistics, x, residual, gain, bias, epsilon);
  record_add(x, residual, sum);
  return {sum, recorded(y, sum, gain, bias, statistics)};
}

}  // namespace agon
