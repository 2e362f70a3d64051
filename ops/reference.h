#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/tensor.h"

/// The specification of every op: naive, f64, on the CPU, one obvious loop each. Tensors are f64 unless i32 is said; an
/// empty tensor stands for "none". Backward functions take dy = ∂loss/∂y and return the gradients of the inputs. rope
/// and attention are in reference_attention.h.
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
        for (int64_t i = 0; i < in; ++i)
          s += rows.data<double>()[n * in + i] * w.data<double>()[(e * out + o) * in + i];
        y.data<double>()[n * out + o] = s;
      }
  return y;
}

inline LinearGradients grouped_linear_backward(const Tensor& dy, const Tensor& rows, const Tensor& w,
                                               const Tensor& offsets) {
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

// ---- cross_entropy: logits [T, V], target [T] i32 (negative: not counted) -> per_token [T]; the loss is their sum
// over `denominator`, and its gradient in the logits is (softmax - onehot) / denominator.

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

// Backward functions from here on return the gradients of the inputs in their order.

/// f(x[i]...) of tensors of equal size, in the shape of the first.
template <class F, class... Rest>
Tensor each(F&& f, const Tensor& x, const Rest&... rest) {
  Tensor y(x.shape(), DType::f64);
  for (size_t i = 0; i < size_t(x.size()); ++i)
    y.data<double>()[i] = f(x.data<double>()[i], rest.template data<double>()[i]...);
  return y;
}

// ---- activations, elementwise

inline double normal_distribution(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }
inline Tensor gelu(const Tensor& x) {
  return each([](double v) { return v * normal_distribution(v); }, x);
}
inline Tensor gelu_backward(const Tensor& dy, const Tensor& x) {
  const auto slope = [](double v) {
    return normal_distribution(v) + v * std::exp(-v * v / 2) / std::sqrt(2 * std::numbers::pi);
  };
  return each([&](double d, double v) { return d * slope(v); }, dy, x);
}
inline Tensor relu(const Tensor& x) {
  return each([](double v) { return v > 0 ? v : 0; }, x);
}
inline Tensor relu_backward(const Tensor& dy, const Tensor& x) {
  return each([](double d, double v) { return v > 0 ? d : 0; }, dy, x);
}
inline Tensor sigmoid(const Tensor& x) {
  return each([](double v) { return 1 / (1 + std::exp(-v)); }, x);
}
inline Tensor sigmoid_backward(const Tensor& dy, const Tensor& x) {
  return each([](double d, double s) { return d * s * (1 - s); }, dy, reference::sigmoid(x));
}

// ---- swiglu: x = [gate | up] [N, 2F] -> silu(gate) * up [N, F]

inline Tensor swiglu(const Tensor& x) {
  const int64_t width = x.shape(-1) / 2;
  Tensor y(x.shape().with(-1, width), DType::f64);
  for (int64_t i = 0; i < y.size(); ++i) {
    const double *const row = &x.data<double>()[i / width * 2 * width], gate = row[i % width],
                        up = row[width + i % width];
    y.data<double>()[i] = gate / (1 + std::exp(-gate)) * up;
  }
  return y;
}

inline Tensor swiglu_backward(const Tensor& dy, const Tensor& x) {
  const int64_t width = x.shape(-1) / 2;
  Tensor dx(x.shape(), DType::f64);
  for (int64_t i = 0; i < dy.size(); ++i) {
    const int64_t at = i / width * 2 * width + i % width;
    const double gate = x.data<double>()[at], up = x.data<double>()[at + width], s = 1 / (1 + std::exp(-gate));
    dx.data<double>()[at] = dy.data<double>()[i] * up * (s + gate * s * (1 - s));
    dx.data<double>()[at + width] = dy.data<double>()[i] * gate * s;
  }
  return dx;
}

// ---- softmax over the last axis

inline Tensor softmax(const Tensor& x) {
  const int64_t width = x.shape(-1);
  Tensor y(x.shape(), DType::f64);
  for (int64_t n = 0; n < x.shape().rows(); ++n) {
    const double *const row = x.data<double>().data() + n * width, maximum = *std::max_element(row, row + width);
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += std::exp(row[i] - maximum);
    for (int64_t i = 0; i < width; ++i) y.data<double>()[n * width + i] = std::exp(row[i] - maximum) / sum;
  }
  return y;
}

inline Tensor softmax_backward(const Tensor& dy, const Tensor& x) {
  const int64_t width = x.shape(-1);
  const Tensor y = reference::softmax(x);
  Tensor dx = zeros(x.shape());
  for (int64_t n = 0; n < x.shape().rows(); ++n)
    for (int64_t i = n * width; i < (n + 1) * width; ++i)
      for (int64_t j = n * width; j < (n + 1) * width; ++j)
        dx.data<double>()[i] += dy.data<double>()[j] * y.data<double>()[j] * ((i == j) - y.data<double>()[i]);
  return dx;
}

// ---- scale_rows: x [.., D], gain [..]

inline Tensor scale_rows(const Tensor& x, const Tensor& gain) {
  Tensor y(x.shape(), DType::f64);
  for (int64_t i = 0; i < x.size(); ++i)
    y.data<double>()[i] = x.data<double>()[i] * gain.data<double>()[i / x.shape(-1)];
  return y;
}

inline std::vector<Tensor> scale_rows_backward(const Tensor& dy, const Tensor& x, const Tensor& gain) {
  std::vector<Tensor> g{zeros(x.shape()), zeros(gain.shape())};
  for (int64_t i = 0; i < x.size(); ++i) {
    g[0].data<double>()[i] = dy.data<double>()[i] * gain.data<double>()[i / x.shape(-1)];
    g[1].data<double>()[i / x.shape(-1)] += dy.data<double>()[i] * x.data<double>()[i];
  }
  return g;
}

// ---- column_mean: x [T, E] -> [E]

inline Tensor column_mean(const Tensor& x) {
  Tensor y = zeros({x.shape(1)});
  for (int64_t i = 0; i < x.size(); ++i) y.data<double>()[i % x.shape(1)] += x.data<double>()[i] / double(x.shape(0));
  return y;
}

inline Tensor column_mean_backward(const Tensor& dy, const Tensor& x) {
  Tensor dx(x.shape(), DType::f64);
  for (int64_t i = 0; i < x.size(); ++i) dx.data<double>()[i] = dy.data<double>()[i % x.shape(1)] / double(x.shape(0));
  return dx;
}

// ---- embedding: table [V, D], token [T] i32 -> [T, D]

inline Tensor embedding(const Tensor& table, const Tensor& token) {
  const int64_t width = table.shape(1);
  Tensor y({token.size(), width}, DType::f64);
  for (int64_t i = 0; i < y.size(); ++i)
    y.data<double>()[i] = table.data<double>()[token.data<int32_t>()[i / width] * width + i % width];
  return y;
}

inline Tensor embedding_backward(const Tensor& dy, const Tensor& table, const Tensor& token) {
  const int64_t width = table.shape(1);
  Tensor dtable = zeros(table.shape());
  for (int64_t i = 0; i < dy.size(); ++i)
    dtable.data<double>()[token.data<int32_t>()[i / width] * width + i % width] += dy.data<double>()[i];
  return dtable;
}

// ---- rms_norm and layer_norm over the last axis: x [.., D], gain [D], bias [D] or none

inline Tensor rms_norm(const Tensor& x, const Tensor& gain, double epsilon) {
  const int64_t width = x.shape(-1);
  Tensor y(x.shape(), DType::f64);
  for (int64_t n = 0; n < x.shape().rows(); ++n) {
    const double* const row = x.data<double>().data() + n * width;
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += row[i] * row[i];
    const double r = 1 / std::sqrt(squares / double(width) + epsilon);
    for (int64_t i = 0; i < width; ++i) y.data<double>()[n * width + i] = row[i] * r * gain.data<double>()[i];
  }
  return y;
}

/// dx, dgain.
inline std::vector<Tensor> rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gain, double epsilon) {
  const int64_t width = x.shape(-1);
  std::vector<Tensor> g{zeros(x.shape()), zeros(gain.shape())};
  for (int64_t n = 0; n < x.shape().rows(); ++n) {
    const double *const row = x.data<double>().data() + n * width, *const d = dy.data<double>().data() + n * width;
    double squares = 0, dr = 0;  // y = row * r * gain
    for (int64_t i = 0; i < width; ++i) squares += row[i] * row[i], dr += d[i] * row[i] * gain.data<double>()[i];
    const double r = 1 / std::sqrt(squares / double(width) + epsilon);
    for (int64_t i = 0; i < width; ++i) {
      g[0].data<double>()[n * width + i] = d[i] * r * gain.data<double>()[i] - dr * r * r * r * row[i] / double(width);
      g[1].data<double>()[i] += d[i] * row[i] * r;
    }
  }
  return g;
}

inline Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon) {
  const int64_t width = x.shape(-1);
  Tensor y(x.shape(), DType::f64);
  for (int64_t n = 0; n < x.shape().rows(); ++n) {
    const double* const row = x.data<double>().data() + n * width;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += row[i] / double(width);
    for (int64_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / double(width);
    for (int64_t i = 0; i < width; ++i)
      y.data<double>()[n * width + i] = (row[i] - mean) / std::sqrt(variance + epsilon) * gain.data<double>()[i] +
                                        (bias ? bias.data<double>()[i] : 0);
  }
  return y;
}

/// dx, dgain, dbias.
inline std::vector<Tensor> layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gain, double epsilon) {
  const int64_t width = x.shape(-1);
  std::vector<Tensor> g{zeros(x.shape()), zeros(gain.shape()), zeros(gain.shape())};
  for (int64_t n = 0; n < x.shape().rows(); ++n) {
    const double *const row = x.data<double>().data() + n * width, *const d = dy.data<double>().data() + n * width;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += row[i] / double(width);
    for (int64_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / double(width);
    const double r = 1 / std::sqrt(variance + epsilon);
    double dmean = 0,
           dr = 0;  // y = (row - mean) * r * gain + bias, where the mean also moves r, but not to first order
    for (int64_t i = 0; i < width; ++i) {
      dmean -= d[i] * gain.data<double>()[i] * r;
      dr += d[i] * gain.data<double>()[i] * (row[i] - mean);
      g[1].data<double>()[i] += d[i] * (row[i] - mean) * r;
      g[2].data<double>()[i] += d[i];
    }
    for (int64_t i = 0; i < width; ++i)
      g[0].data<double>()[n * width + i] =
          d[i] * gain.data<double>()[i] * r + (dmean - dr * r * r * r * (row[i] - mean)) / double(width);
  }
  return g;
}

// ---- adamw: one step of one parameter from its gradient g; w, m and v change in place

inline void adamw(const Tensor& w, const Tensor& m, const Tensor& v, const Tensor& g, double rate, double beta1,
                  double beta2, double epsilon, double decay, int64_t step) {
  for (int64_t i = 0; i < w.size(); ++i) {
    double &wi = w.data<double>()[i], &mi = m.data<double>()[i], &vi = v.data<double>()[i], gi = g.data<double>()[i];
    mi = beta1 * mi + (1 - beta1) * gi;
    vi = beta2 * vi + (1 - beta2) * gi * gi;
    const double m_hat = mi / (1 - std::pow(beta1, double(step))), v_hat = vi / (1 - std::pow(beta2, double(step)));
    wi -= rate * (m_hat / (std::sqrt(v_hat) + epsilon) + decay * wi);
  }
}

}  // namespace agon::reference
