#pragma once
#include <bit>
#include <cstdint>
#include <ostream>
#include <string_view>
#include <type_traits>

#include "core/error.h"

namespace agon {

/// d as a float, rounded to odd: what was cut off leaves its mark in the last bit, so that a second rounding to a type
/// at least two bits narrower gives what one rounding of d would have given (Boldo and Melquiond, "When double rounding
/// is odd", 2005).
constexpr float rounded_to_odd(double d) {
  const float f = float(d);
  if (double(f) == d || d != d) return f;
  uint32_t u = std::bit_cast<uint32_t>(f);
  if ((f < 0 ? -double(f) : double(f)) > (d < 0 ? -d : d)) --u;  // went away from zero: truncate instead
  return std::bit_cast<float>(u | 1u);
}

/// bfloat16 as storage: the upper half of an IEEE single. Arithmetic happens in float. Trivial, so that it can lie in a
/// GPU's shared memory: `bf16 x;` is undefined, bf16() is 0.
struct bf16 {
  uint16_t bits;
  bf16() = default;
  /// Rounds to nearest, ties to even; NaN becomes 0x7fff as in __float2bfloat16_rn.
  constexpr explicit bf16(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fff) : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  constexpr explicit bf16(double d) : bf16(rounded_to_odd(d)) {}
  constexpr operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

/// IEEE half precision; exists in files only.
struct f16 {
  uint16_t bits = 0;
  f16() = default;
  /// Rounds to nearest, ties to even; a NaN stays a NaN of its sign, beyond 65504 comes infinity.
  explicit f16(float f);
  explicit f16(double d) : f16(rounded_to_odd(d)) {}
  operator float() const;
};

/// f16 occurs in files only. Models compute in f64 on the CPU only (gradient checks); on other devices f64 holds counts
/// and figures.
enum class DType : uint8_t { f32, bf16, f16, f64, i32, u8 };

constexpr int64_t size_of(DType t) {
  switch (t) {
    case DType::f64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

std::string_view name_of(DType t);
inline std::ostream& operator<<(std::ostream& os, DType t) { return os << name_of(t); }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// The type a kernel computes and accumulates in when its tensors hold T: f64 for f64, else f32.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

/// A number in another dtype, rounded once to nearest even; to an integer by truncation.
template <class To, class From>
constexpr To convert(From v) {
  constexpr bool from_half = std::is_same_v<From, bf16> || std::is_same_v<From, f16>;
  constexpr bool to_half = std::is_same_v<To, bf16> || std::is_same_v<To, f16>;
  if constexpr (from_half)
    return To(float(v));
  else if constexpr (to_half && !std::is_same_v<From, float>)
    return To(double(v));  // integers: exact, then one rounding
  else
    return To(v);
}

constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f64; }

/// The dtype of what is always f32 for a tensor of dtype t (statistics, logits, losses): f64 when t is f64.
constexpr DType accumulator_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

/// Calls f.template operator()<T>() with the C++ type behind a computing dtype: float, bf16 or double.
template <class F>
decltype(auto) visit_float(DType t, F&& f) {
  if (t == DType::f64) return f.template operator()<double>();
  if (t == DType::bf16) return f.template operator()<bf16>();
  check(t == DType::f32, "expected a tensor of f32, bf16 or f64, got ", t);
  return f.template operator()<float>();
}

/// As visit_float, for what is never stored in bf16: float or double.
template <class F>
decltype(auto) visit_accumulator(DType t, F&& f) {
  if (t == DType::f64) return f.template operator()<double>();
  check(t == DType::f32, "expected a tensor of f32 or f64, got ", t);
  return f.template operator()<float>();
}

}  // namespace agon
