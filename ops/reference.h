#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tensor.h"

/// The specification of every op: naive, f64, on the CPU, one obvious loop each. Tensors are f64 unless i32 is said; an
/// empty tensor stands for "none". Backward functions take dy = ∂loss/∂y and return the gradients of the inputs.
namespace agon::reference {

inline Tensor zeros(Shape shape) {
  Tensor t(shape, DType::f64);
  return t.zero();
}

// ---- linear: x [T, I], w [O, I], bias [O] or none -> y [T, O]

inline Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {}) {
  const int64_t rows = x.shape().rows(), in = w.shape(1), out = w.shape(0);
  Tensor y(x.shape().with(-1, out), DType::f64);
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t o = 0; o < out; ++o) {
      double s = bias ? bias.data<double>()[o] : 0;
      for (int64_t i = 0; i < in; ++i) s += x.data<double>()[t * in + i] * w.data<double>()[o * in + i];
      y.data<double>()[t * out + o] = s;
    }
  return y;
}

struct LinearGradients {
  Tensor dx, dw, dbias;
};

inline LinearGradients linear_backward(const Tensor& dy, const Tensor& x, const Tensor& w) {
  const int64_t rows = x.shape().rows(), in = w.shape(1), out = w.shape(0);
  LinearGradients g{zeros(x.shape()), zeros(w.shape()), zeros({out})};
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t o = 0; o < out; ++o) {
      const double d = dy.data<double>()[t * out + o];
      g.dbias.data<double>()[o] += d;
      for (int64_t i = 0; i < in; ++i) {
        g.dx.data<double>()[t * in + i] += d * w.data<double>()[o * in + i];
        g.dw.data<double>()[o * in + i] += d * x.data<double>()[t * in + i];
      }
    }
  return g;
}

// ---- grouped_linear: rows [N, I], w [e, O, I], offsets [e+1] i32, bias [e, O] or none -> y [N, O]

inline Tensor grouped_linear(const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias = {}) {
  const int64_t groups = w.shape(0), out = w.shape(1), in = w.shape(2);
  Tensor y = zeros({rows.shape(0), out});
  for (int64_t e = 0; e < groups; ++e)
    for (int64_t n = offsets.data<int32_t>()[e]; n < offsets.data<int32_t>()[e + 1]; ++n)
      for (int64_t o = 0; o < out; ++o) {
        double s = bias ? bias.data<double>()[e * out + o] : 0;
        for (int64_t i = 0; i < in; ++i) s += rows.data<double>()[n * in + i] * w.data<double>()[(e * out + o) * in + i];
        y.data<double>()[n * out + o] = s;
      }
  return y;
}

inline LinearGradients grouped_linear_backward(const Tensor& dy, const Tensor& rows, const Tensor& w, const Tensor& offsets) {
  const int64_t groups = w.shape(0), out = w.shape(1), in = w.shape(2);
  LinearGradients g{zeros(rows.shape()), zeros(w.shape()), zeros({groups, out})};
  for (int64_t e = 0; e < groups; ++e)
    for (int64_t n = offsets.data<int32_t>()[e]; n < offsets.data<int32_t>()[e + 1]; ++n)
      for (int64_t o = 0; o < out; ++o) {
        const double d = dy.data<double>()[n * out + o];
        g.dbias.data<double>()[e * out + o] += d;
        for (int64_t i = 0; i < in; ++i) {
          g.dx.data<double>()[n * in + i] += d * w.data<double>()[(e * out + o) * in + i];
          g.dw.data<double>()[(e * out + o) * in + i] += d * rows.data<double>()[n * in + i];
        }
      }
  return g;
}

// ---- cross_entropy: logits [T, V], target [T] i32 (negative: not counted) -> per_token [T]; the loss is their sum over
// `denominator`, and its gradient in the logits is (softmax - onehot) / denominator.

struct CrossEntropy {
  double loss = 0;
  Tensor per_token, dlogits;
};

inline CrossEntropy cross_entropy(const Tensor& logits, const Tensor& target, double denominator) {
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  CrossEntropy result{0, zeros({rows}), zeros(logits.shape())};
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t label = target.data<int32_t>()[t];
    if (label < 0) continue;
    const double* row = &logits.data<double>()[t * classes];
    const double maximum = *std::max_element(row, row + classes);
    double sum = 0;
    for (int64_t v = 0; v < classes; ++v) sum += std::exp(row[v] - maximum);
    result.per_token.data<double>()[t] = maximum + std::log(sum) - row[label];
    result.loss += result.per_token.data<double>()[t] / denominator;
    for (int64_t v = 0; v < classes; ++v)
      result.dlogits.data<double>()[t * classes + v] = (std::exp(row[v] - maximum) / sum - (v == label)) / denominator;
  }
  return result;
}

}  // namespace agon::reference
