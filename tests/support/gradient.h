#pragma once
#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/random.h"

namespace agon::testing {

/// Where the ops of a case run: the CPU, or, in the second run of a DEVICE_CASE, a GPU.
inline Device& device_of_case() {
  static Device device;
  return device;
}
/// A tensor on the device of the case.
inline Tensor there(const Tensor& t) { return on_device(t, device_of_case()); }

/// A tensor of normal draws.
inline Tensor random(Shape shape, uint64_t seed, double deviation = 1, DType dtype = DType::f64) {
  Tensor t(shape, dtype);
  fill_normal(t, {seed, 0}, deviation);
  return t;
}

inline double dot(const Tensor& a, const Tensor& b) {
  const Tensor x = converted(on_host(a), DType::f64), y = converted(on_host(b), DType::f64);
  double s = 0;
  for (size_t i = 0; i < x.data<double>().size(); ++i) s += x.data<double>()[i] * y.data<double>()[i];
  return s;
}

/// |a - b| / |b| in the Euclidean norm (|a - b| where b is 0).
inline double relative_error(const Tensor& a, const Tensor& b) {
  const Tensor x = converted(on_host(a), DType::f64), y = converted(on_host(b), DType::f64);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.data<double>().size(); ++i) {
    const double u = x.data<double>()[i], v = y.data<double>()[i];
    difference += (u - v) * (u - v);
    norm += v * v;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

/// The same bits.
inline bool identical(const Tensor& a, const Tensor& b) {
  const Tensor x = on_host(a), y = on_host(b);
  return x.shape() == y.shape() && x.dtype() == y.dtype() && std::memcmp(x.address(), y.address(), size_t(x.bytes())) == 0;
}

/// The inner product with a fixed random direction, as a scalar on the tape: turns any tensor into a loss whose gradient
/// is not symmetric. Gradient: the direction.
inline Tensor probe(const Tensor& y, uint64_t seed) {
  const Tensor direction = random(y.shape(), seed, 1, y.dtype());
  Tensor s({1}, accumulator_dtype(y.dtype()), y.device());
  fill(s, dot(y, direction));
  return record("probe", {&y}, s, [y, direction](Gradients& g, const Tensor& ds) {
    Tensor dy = clone(direction);
    const double by = ds.item();
    visit_float(dy.dtype(), [&]<class T>() {
      for (T& v : dy.data<T>()) v = T(double(v) * by);
    });
    g.add(y, on_device(dy, y.device()));
  });
}

/// The worst disagreement between gradients and central differences of f, each parameter along one random direction:
/// |(f(p + hv) - f(p - hv)) / 2h - <grad, v>| relative to their size. Two evaluations each, f64.
inline double gradient_error(std::span<Parameter* const> parameters, const std::function<Tensor()>& f, double h = 1e-5) {
  for (Parameter* p : parameters) p->has_grad = false;
  {
    Tape tape(parameters);
    tape.backward(f());
  }
  double worst = 0;
  uint64_t seed = 7;
  for (Parameter* p : parameters) {
    const Tensor v = random(p->value.shape(), seed++), keep = clone(p->value);
    const auto at = [&](double s) {
      for (size_t i = 0; i < v.data<double>().size(); ++i) p->value.data<double>()[i] = keep.data<double>()[i] + s * v.data<double>()[i];
      return f().item();
    };
    const double numeric = (at(h) - at(-h)) / (2 * h), along = dot(p->grad, v);
    copy(p->value, keep);
    worst = std::max(worst, std::abs(numeric - along) / std::max(1e-3, std::abs(numeric) + std::abs(along)));
  }
  return worst;
}

/// The same for plain tensors: f64 inputs of an op.
inline double gradient_error(const std::vector<Tensor>& inputs, const std::function<Tensor(const std::vector<Parameter>&)>& f, double h = 1e-5) {
  std::vector<Parameter> parameters;
  std::vector<Parameter*> pointers;
  for (const Tensor& x : inputs) {
    parameters.emplace_back(x.shape(), Precision::f64());
    copy(parameters.back().value, x);
  }
  for (Parameter& p : parameters) pointers.push_back(&p);
  return gradient_error(pointers, [&] { return f(parameters); }, h);
}

}  // namespace agon::testing
