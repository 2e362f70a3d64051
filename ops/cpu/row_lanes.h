#pragma once
#include <stdint.h>

// Numbers of a row, some at a time, in registers of kRegisterBytes: the including file, which is compiled for one
// instruction set, says how wide they are. Everything here is local to that file.
namespace agon {

struct bf16;

namespace cpu {
namespace {

template <class N>
struct RegisterOf {
  typedef N type __attribute__((vector_size(kRegisterBytes)));
};
template <class N>
using Register = typename RegisterOf<N>::type;

/// What sums are kept in, whatever the registers' width.
constexpr int kLanes = 16;
/// Four registers of f32: chains of instructions that do not wait for each other.
constexpr int kWide = kRegisterBytes;

/// K numbers.
template <class N, int K>
struct Lanes {
  static constexpr int kNumbers = kRegisterBytes / int(sizeof(N)), kParts = K / kNumbers;
  Register<N> part[kParts];
};

/// Register by register: f(0), f(1), ...
template <class N, int K, class F>
[[gnu::always_inline]] inline Lanes<N, K> each_part(F&& f) {
  Lanes<N, K> r;
#pragma GCC unroll 8
  for (int i = 0; i < Lanes<N, K>::kParts; ++i) r.part[i] = f(i);
  return r;
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> operator+(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return a.part[i] + b.part[i]; });
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> operator-(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return a.part[i] - b.part[i]; });
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> operator*(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return a.part[i] * b.part[i]; });
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> operator/(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return a.part[i] / b.part[i]; });
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> operator-(const Lanes<N, K>& a) {
  return each_part<N, K>([&](int i) { return -a.part[i]; });
}
/// b where that is larger (smaller), else a.
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> larger(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return b.part[i] > a.part[i] ? b.part[i] : a.part[i]; });
}
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> smaller(const Lanes<N, K>& a, const Lanes<N, K>& b) {
  return each_part<N, K>([&](int i) { return b.part[i] < a.part[i] ? b.part[i] : a.part[i]; });
}

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }
template <class N, int K>
inline Lanes<N, K> root(const Lanes<N, K>& v) {
  Lanes<N, K> r;
  for (int i = 0; i < Lanes<N, K>::kParts; ++i)
    for (int j = 0; j < Lanes<N, K>::kNumbers; ++j) r.part[i][j] = root(v.part[i][j]);
  return r;
}

/// The elements of a row from `at` on: K, or the last `count`, fewer than 16.
template <int K>
struct Whole {
  static constexpr int kNumbers = K;
  int64_t at;
};
struct Rest {
  static constexpr int kNumbers = kLanes;
  int64_t at, count;
};

/// The elements `by` further on.
template <int K>
inline Whole<K> moved(Whole<K> w, int64_t by) {
  return {w.at + by};
}
inline Rest moved(Rest rest, int64_t by) { return {rest.at + by, rest.count}; }

/// v for each of these elements.
template <class N, class Where>
[[gnu::always_inline]] inline Lanes<N, Where::kNumbers> all(N v, Where) {
  return each_part<N, Where::kNumbers>([=](int) { return v - Register<N>{}; });
}

/// p * 2^n for a whole n from -151 to 129, which is also in the low bits of n + 1.5 * 2^23: two factors that are normal
/// numbers, the second product rounds.
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> times_power(const Lanes<N, K>& p, const Lanes<N, K>&,
                                                      const Lanes<N, K>& shifted) {
  using F = Register<float>;
  using I = Register<int32_t>;
  const auto exponent = [&](int i) { return I(shifted.part[i]) - __builtin_bit_cast(int32_t, 0x1.8p23f); };
  const auto low = each_part<float, K>([&](int i) { return F(((exponent(i) >> 1) + 127) << 23); });
  const auto high = each_part<float, K>([&](int i) { return F((exponent(i) - (exponent(i) >> 1) + 127) << 23); });
  return p * low * high;
}

/// cpu::exp of ops/cpu/exp.h, to the bit.
template <int K>
[[gnu::always_inline]] inline Lanes<float, K> exp(const Lanes<float, K>& x) {
  constexpr float kToInteger = 0x1.8p23f;
  const auto c = [](float v) { return all(v, Whole<K>{}); };
  const auto clamped = smaller(larger(x, c(-104.f)), c(89.f));
  const auto shifted = clamped * c(1.44269504f) + c(kToInteger);
  const auto n = shifted - c(kToInteger);
  const auto r = clamped - n * c(0x1.63p-1f) - n * c(-2.12194440e-4f);
  auto p = c(1.f / 5040);
  p = p * r + c(1.f / 720);
  p = p * r + c(1.f / 120);
  p = p * r + c(1.f / 24);
  p = p * r + c(1.f / 6);
  p = p * r + c(0.5f);
  p = p * (r * r) + r + c(1.f);
  return times_power(p, n, shifted);
}
template <int K>
inline Lanes<double, K> exp(const Lanes<double, K>& x) {
  using L = Lanes<double, K>;
  L r;
  for (int i = 0; i < L::kParts; ++i)
    for (int j = 0; j < L::kNumbers; ++j) r.part[i][j] = __builtin_exp(x.part[i][j]);
  return r;
}

template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> load(const N* p, Whole<K> w) {
  return each_part<N, K>([=](int i) {
    Register<N> r;
    __builtin_memcpy(&r, p + w.at + i * Lanes<N, K>::kNumbers, sizeof r);
    return r;
  });
}
template <class N, int K>
[[gnu::always_inline]] inline void store(N* p, Whole<K> w, const Lanes<N, K>& v) {
#pragma GCC unroll 8
  for (int i = 0; i < Lanes<N, K>::kParts; ++i)
    __builtin_memcpy(p + w.at + i * Lanes<N, K>::kNumbers, &v.part[i], kRegisterBytes);
}

typedef uint16_t Halves __attribute__((vector_size(kRegisterBytes / 2)));

template <int K>
[[gnu::always_inline]] inline Lanes<float, K> load(const bf16* p, Whole<K> w) {
  const uint16_t* const bits = reinterpret_cast<const uint16_t*>(p) + w.at;
  return each_part<float, K>([=](int i) {
    Halves h;
    __builtin_memcpy(&h, bits + i * Lanes<float, K>::kNumbers, sizeof h);
    return Register<float>(__builtin_convertvector(h, Register<uint32_t>) << 16);
  });
}
/// Rounds as bf16(float) does: to nearest even, NaN becomes 0x7fff.
template <int K>
[[gnu::always_inline]] inline void store(bf16* p, Whole<K> w, const Lanes<float, K>& v) {
  uint16_t* const bits = reinterpret_cast<uint16_t*>(p) + w.at;
#pragma GCC unroll 8
  for (int i = 0; i < Lanes<float, K>::kParts; ++i) {
    const Register<float> x = v.part[i];
    const Register<uint32_t> u = Register<uint32_t>(x), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const Halves h = __builtin_convertvector(x == x ? rounded : Register<uint32_t>{} + 0x7fff, Halves);
    __builtin_memcpy(bits + i * Lanes<float, K>::kNumbers, &h, sizeof h);
  }
}

template <class T>
struct StorageOf {
  using type = T;
};
template <>
struct StorageOf<bf16> {
  using type = uint16_t;
};

/// One number of a row.
template <class N>
inline N number(const N* p, int64_t i) {
  return p[i];
}
inline float number(const bf16* p, int64_t i) {
  return __builtin_bit_cast(float, uint32_t(reinterpret_cast<const uint16_t*>(p)[i]) << 16);
}

/// Zeros behind the last.
template <class T>
[[gnu::noinline]] auto load(const T* p, Rest rest) {
  using S = typename StorageOf<T>::type;
  S all[kLanes] = {};
  for (int64_t j = 0; j < rest.count; ++j) all[j] = (reinterpret_cast<const S*>(p) + rest.at)[j];
  return load(reinterpret_cast<const T*>(all), Whole<kLanes>{0});
}
template <class T, class N>
[[gnu::noinline]] void store(T* p, Rest rest, const Lanes<N, kLanes>& v) {
  using S = typename StorageOf<T>::type;
  S all[kLanes];
  store(reinterpret_cast<T*>(all), Whole<kLanes>{0}, v);
  for (int64_t j = 0; j < rest.count; ++j) (reinterpret_cast<S*>(p) + rest.at)[j] = all[j];
}

/// v, with `behind` in the lanes behind the last element.
template <class N, int K>
[[gnu::always_inline]] inline Lanes<N, K> fill(const Lanes<N, K>& v, Whole<K>, N) {
  return v;
}
template <class N>
[[gnu::noinline]] Lanes<N, kLanes> fill(const Lanes<N, kLanes>& v, Rest rest, N behind) {
  N lanes[kLanes];
  store(lanes, Whole<kLanes>{0}, v);
  for (int64_t j = rest.count; j < kLanes; ++j) lanes[j] = behind;
  return load(lanes, Whole<kLanes>{0});
}

/// f32 numbers as doubles.
template <int K>
[[gnu::always_inline]] inline Lanes<double, K> wide(const Lanes<float, K>& v) {
  typedef float HalfRegister __attribute__((vector_size(kRegisterBytes / 2)));
  constexpr int kEach = Lanes<double, K>::kNumbers;
  float numbers[K];
  store(numbers, Whole<K>{0}, v);
  return each_part<double, K>([&](int i) {
    HalfRegister h;
    __builtin_memcpy(&h, numbers + i * kEach, sizeof h);
    return __builtin_convertvector(h, Register<double>);
  });
}
template <int K>
[[gnu::always_inline]] inline Lanes<double, K> wide(const Lanes<double, K>& v) {
  return v;
}

/// Calls f for all elements of a row, in order.
template <class F>
[[gnu::always_inline]] inline void each_lanes(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) f(Whole<kWide>{i});
  if constexpr (kWide > kLanes)
    for (; i + kLanes <= n; i += kLanes) f(Whole<kLanes>{i});
  if (i < n) f(Rest{i, n - i});
}

/// total = join(total, terms), sixteen terms after the other.
template <class N, int K, class Join>
[[gnu::always_inline]] inline void take(Lanes<N, kLanes>& total, const Lanes<N, K>& terms, Join&& join) {
#pragma GCC unroll 4
  for (int at = 0; at < K / kLanes; ++at)
    total = join(total, each_part<N, kLanes>([&](int i) { return terms.part[at * Lanes<N, kLanes>::kParts + i]; }));
}
/// The lanes folded in halves.
template <class N, class Join>
[[gnu::always_inline]] inline N fold(const Lanes<N, kLanes>& v, Join&& join) {
  N lanes[kLanes];
  store(lanes, Whole<kLanes>{0}, v);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) lanes[j] = join(lanes[j], lanes[j + half]);
  return lanes[0];
}
/// The sum over a row of term(where).
template <class N, class F>
[[gnu::always_inline]] inline N sum(int64_t n, F&& term) {
  auto total = all(N(0), Whole<kLanes>{});
  each_lanes(
      n, [&](auto at) { take(total, fill(term(at), at, N(0)), [](const auto& a, const auto& b) { return a + b; }); });
  return fold(total, [](N a, N b) { return a + b; });
}
/// The largest of `start` and the terms over a row.
template <class N, class F>
[[gnu::always_inline]] inline N largest(N start, int64_t n, F&& term) {
  auto top = all(start, Whole<kLanes>{});
  each_lanes(n, [&](auto at) {
    take(top, fill(term(at), at, start), [](const auto& a, const auto& b) { return larger(a, b); });
  });
  return fold(top, [](N a, N b) { return b > a ? b : a; });
}

}  // namespace
}  // namespace cpu
}  // namespace agon
