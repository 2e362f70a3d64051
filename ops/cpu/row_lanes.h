#pragma once
#include <stdint.h>

// Sixteen numbers of a row at a time, in as many registers of kRegisterBytes as that takes: the including file, which
// is compiled for one instruction set, says how wide they are. Everything here is local to that file.
namespace agon {

struct bf16;

namespace cpu {
namespace {

constexpr int64_t kLanes = 16;

template <class N>
struct RegisterOf {
  typedef N type __attribute__((vector_size(kRegisterBytes)));
};
template <class N>
using Register = typename RegisterOf<N>::type;

template <class N>
struct Lanes {
  static constexpr int kNumbers = kRegisterBytes / int(sizeof(N)), kParts = int(kLanes) / kNumbers;
  Register<N> part[kParts];
};

/// Made register by register of f(0), f(1), ...
template <class N, class F>
[[gnu::always_inline]] inline Lanes<N> each_part(F&& f) {
  Lanes<N> r;
#pragma GCC unroll 8
  for (int i = 0; i < Lanes<N>::kParts; ++i) r.part[i] = f(i);
  return r;
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> all(N v) {
  return each_part<N>([=](int) { return v - Register<N>{}; });
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> operator+(const Lanes<N>& a, const Lanes<N>& b) {
  return each_part<N>([&](int i) { return a.part[i] + b.part[i]; });
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> operator-(const Lanes<N>& a, const Lanes<N>& b) {
  return each_part<N>([&](int i) { return a.part[i] - b.part[i]; });
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> operator*(const Lanes<N>& a, const Lanes<N>& b) {
  return each_part<N>([&](int i) { return a.part[i] * b.part[i]; });
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> operator/(const Lanes<N>& a, const Lanes<N>& b) {
  return each_part<N>([&](int i) { return a.part[i] / b.part[i]; });
}
template <class N>
[[gnu::always_inline]] inline Lanes<N> operator-(const Lanes<N>& a) {
  return each_part<N>([&](int i) { return -a.part[i]; });
}
/// b where that is larger, else a.
template <class N>
[[gnu::always_inline]] inline Lanes<N> larger(const Lanes<N>& a, const Lanes<N>& b) {
  return each_part<N>([&](int i) { return b.part[i] > a.part[i] ? b.part[i] : a.part[i]; });
}

/// cpu::exp of ops/cpu/exp.h, to the bit.
[[gnu::always_inline]] inline Register<float> exp_of(const Register<float>& x) {
  using Floats = Register<float>;
  using Integers = Register<int32_t>;
  constexpr float kToInteger = 0x1.8p23f;
  const Floats low = -104.f - Floats{}, high = 89.f - Floats{};
  Floats clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
  const Floats shifted = clamped * 1.44269504f + kToInteger;
  const Floats n = shifted - kToInteger;
  const Floats r = clamped - n * 0x1.63p-1f - n * -2.12194440e-4f;
  Floats p = 1.f / 5040 - Floats{};
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.f;
  const Integers exponent = Integers(shifted) - __builtin_bit_cast(int32_t, kToInteger), half = exponent >> 1;
  return p * Floats((half + 127) << 23) * Floats((exponent - half + 127) << 23);
}
[[gnu::always_inline]] inline Lanes<float> exp(const Lanes<float>& x) {
  return each_part<float>([&](int i) { return exp_of(x.part[i]); });
}
inline Lanes<double> exp(const Lanes<double>& x) {
  Lanes<double> r;
  for (int i = 0; i < Lanes<double>::kParts; ++i)
    for (int j = 0; j < Lanes<double>::kNumbers; ++j) r.part[i][j] = __builtin_exp(x.part[i][j]);
  return r;
}

/// The 16 elements of a row from `at` on.
struct Whole {
  int64_t at;
};
/// The last `count` elements, fewer than 16.
struct Rest {
  int64_t at, count;
};

template <class N>
[[gnu::always_inline]] inline Lanes<N> load(const N* p, Whole w) {
  Lanes<N> r;
  __builtin_memcpy(&r, p + w.at, sizeof r);
  return r;
}
template <class N>
[[gnu::always_inline]] inline void store(N* p, Whole w, const Lanes<N>& v) {
  __builtin_memcpy(p + w.at, &v, sizeof v);
}

typedef uint16_t Halves __attribute__((vector_size(kRegisterBytes / 2)));

[[gnu::always_inline]] inline Lanes<float> load(const bf16* p, Whole w) {
  const uint16_t* const bits = reinterpret_cast<const uint16_t*>(p) + w.at;
  return each_part<float>([=](int i) {
    Halves h;
    __builtin_memcpy(&h, bits + i * Lanes<float>::kNumbers, sizeof h);
    return Register<float>(__builtin_convertvector(h, Register<uint32_t>) << 16);
  });
}
/// Rounds as bf16(float) does: to nearest even, NaN becomes 0x7fff.
[[gnu::always_inline]] inline void store(bf16* p, Whole w, const Lanes<float>& v) {
  uint16_t* const bits = reinterpret_cast<uint16_t*>(p) + w.at;
#pragma GCC unroll 8
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Register<float> x = v.part[i];
    const Register<uint32_t> u = Register<uint32_t>(x), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const Halves h = __builtin_convertvector(x == x ? rounded : Register<uint32_t>{} + 0x7fff, Halves);
    __builtin_memcpy(bits + i * Lanes<float>::kNumbers, &h, sizeof h);
  }
}

template <class T>
struct Storage {
  using type = T;
};
template <>
struct Storage<bf16> {
  using type = uint16_t;
};

/// Zeros behind the last.
template <class T>
inline auto load(const T* p, Rest rest) {
  using S = typename Storage<T>::type;
  S all[kLanes] = {};
  for (int64_t j = 0; j < rest.count; ++j) all[j] = (reinterpret_cast<const S*>(p) + rest.at)[j];
  return load(reinterpret_cast<const T*>(all), Whole{0});
}
template <class T, class N>
inline void store(T* p, Rest rest, const Lanes<N>& v) {
  using S = typename Storage<T>::type;
  S all[kLanes];
  store(reinterpret_cast<T*>(all), Whole{0}, v);
  for (int64_t j = 0; j < rest.count; ++j) (reinterpret_cast<S*>(p) + rest.at)[j] = all[j];
}

/// v with `behind` in the lanes behind the last.
template <class N>
[[gnu::always_inline]] inline Lanes<N> fill(const Lanes<N>& v, Whole, N) {
  return v;
}
template <class N>
inline Lanes<N> fill(const Lanes<N>& v, Rest rest, N behind) {
  N lanes[kLanes];
  store(lanes, Whole{0}, v);
  for (int64_t j = rest.count; j < kLanes; ++j) lanes[j] = behind;
  return load(lanes, Whole{0});
}

/// Calls f for the row's elements, 16 after 16.
template <class F>
[[gnu::always_inline]] inline void each_lanes(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(Whole{i});
  if (i < n) f(Rest{i, n - i});
}

/// The lanes folded in halves with join(a, b).
template <class N, class Join>
[[gnu::always_inline]] inline N fold(const Lanes<N>& v, Join&& join) {
  N lanes[kLanes];
  store(lanes, Whole{0}, v);
#pragma GCC unroll 4
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int64_t j = 0; j < half; ++j) lanes[j] = join(lanes[j], lanes[j + half]);
  return lanes[0];
}
/// The sum of term(where), 16 terms at a time.
template <class N, class F>
[[gnu::always_inline]] inline N sum(int64_t n, F&& term) {
  Lanes<N> total = all(N(0));
  each_lanes(n, [&](auto where) { total = total + fill(term(where), where, N(0)); });
  return fold(total, [](N a, N b) { return a + b; });
}

}  // namespace
}  // namespace cpu
}  // namespace agon
