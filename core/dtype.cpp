#include "core/dtype.h"

namespace agon {

std::string_view name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

f16::f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
  if (rest > 0x7f800000u) {  // NaN stays NaN
    bits = uint16_t(sign | 0x7e00u);
  } else if (rest >= 0x477ff000u) {  // rounds beyond 65504
    bits = uint16_t(sign | 0x7c00u);
  } else if (rest >= 0x38800000u) {  // normal: rebias the exponent, round to nearest even
    const uint32_t v = rest - 0x38000000u;
    bits = uint16_t(sign | ((v + 0xfffu + ((v >> 13) & 1u)) >> 13));
  } else {  // subnormal: adding 0.5 aligns the mantissa, the FPU rounds
    const float shifted = std::bit_cast<float>(rest) + 0.5f;
    bits = uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)));
  }
}

f16::operator float() const {
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float tiny = float(mantissa) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

}  // namespace agon
