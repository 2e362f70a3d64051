#pragma once
#include "ops/cpu/row_lanes.h"
#include "ops/cpu/rows.h"

// Local to the including file, as row_lanes.h.
namespace agon::cpu {
namespace {

template <class T>
using Number = typename RowNumber<T>::type;

template <class T>
void swiglu(T* y, const T* gate, const T* up, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto one = all(Number<T>(1), at), a = load(gate, at);
    store(y, at, a / (one + exp(-a)) * load(up, at));
  });
}

template <class T>
void swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto one = all(Number<T>(1), at), a = load(gate, at), b = load(up, at), d = load(dy, at);
    const auto s = one / (one + exp(-a));
    store(dgate, at, d * b * s * (one + a * (one - s)));
    store(dup, at, d * a * s);
  });
}

template <class T>
Number<T> swiglu_weighed(T* hidden, T* gate, T* up, T* slopes, Number<T> weight, int64_t n) {
  return sum<Number<T>>(n, [=](auto at) {
    const auto one = all(Number<T>(1), at), a = load(gate, at), b = load(up, at), t = one + exp(-a);
    store(hidden, at, a / t * b);  // read again, as it and the slopes are rounded where T is narrow
    const auto product = load(slopes, at) * load(hidden, at);
    store(slopes, at, load(slopes, at) * all(weight, at));
    const auto d = load(slopes, at), s = one / t;
    store(gate, at, d * b * s * (one + a * (one - s)));
    store(up, at, d * a * s);
    return product;
  });
}

template <class T>
void sigmoid(T* y, const T* x, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto one = all(Number<T>(1), at);
    store(y, at, one / (one + exp(-load(x, at))));
  });
}

/// Of the standard normal distribution: Φ(x) and exp(-x²/2).
template <class N, int K>
struct Normal {
  Lanes<N, K> distribution, bell;
};

/// For a = |x|: Φ(-a) = exp(-a²/2) q(a), where q(a) (a + 4) is smooth in u = (a - 4) / (a + 4): a polynomial in u,
/// fitted for a up to 14.5, where Φ(-a) is 0 in f32, is right to 3e-8 of it. The half below 0 keeps its digits.
template <int K>
[[gnu::always_inline]] inline Normal<float, K> normal(const Lanes<float, K>& x) {
  const auto c = [](float v) { return all(v, Whole<K>{}); };
  const auto a = smaller(larger(x, -x), c(14.5f));
  // a² as the sum of two numbers: 12 leading bits of a have exact products.
  const auto high = each_part<float, K>(
      [&](int i) { return Register<float>(Register<uint32_t>(a.part[i]) & (0xfffff000u + Register<uint32_t>{})); });
  const auto low = a - high, square = a * a;
  const auto rest = high * high - square + (high + high) * low + low * low;
  const auto bell = exp(square * c(-0.5f)) * (c(1) - rest * c(0.5f));
  const auto t = c(1) / (a + c(4)), u = c(1) - c(8) * t;
  auto p = c(-0.000122983154f);
  p = p * u + c(0.000194801847f);
  p = p * u + c(0.0015693137f);
  p = p * u + c(-0.00352357398f);
  p = p * u + c(-0.00752721308f);
  p = p * u + c(0.0604064688f);
  p = p * u + c(-0.186523005f);
  p = p * u + c(0.387136668f);
  p = p * u + c(-0.607896626f);
  p = p * u + c(0.755285144f);
  const auto tail = bell * (p * t), other = c(1) - tail;
  return {each_part<float, K>([&](int i) { return x.part[i] < 0.f ? tail.part[i] : other.part[i]; }), bell};
}
template <int K>
inline Normal<double, K> normal(const Lanes<double, K>& x) {
  Normal<double, K> r;
  for (int i = 0; i < Lanes<double, K>::kParts; ++i)
    for (int j = 0; j < Lanes<double, K>::kNumbers; ++j) {
      const double v = x.part[i][j];
      r.distribution.part[i][j] = 0.5 * __builtin_erfc(v * -0.70710678118654752440);
      r.bell.part[i][j] = __builtin_exp(-0.5 * v * v);
    }
  return r;
}

template <class T>
void gelu(T* y, const T* x, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto v = load(x, at);
    store(y, at, v * normal(v).distribution);
  });
}

template <class T>
void gelu_backward(T* dx, const T* dy, const T* x, int64_t n) {
  each_lanes(n, [=](auto at) {
    const auto v = load(x, at);
    const auto of_v = normal(v);
    const auto density = all(Number<T>(0.39894228040143267794), at) * of_v.bell;
    store(dx, at, load(dy, at) * (of_v.distribution + v * density));
  });
}

}  // namespace
}  // namespace agon::cpu
