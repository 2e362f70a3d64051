#include "ops/cpu/gemm_avx512.h"

// Compiled for AVX-512 with BW, VL and BF16 and reached only where the processor has them; see gemm_kernels.h about
// includes.
namespace agon::cpu {
namespace {

struct Pairs {
  using Packed = Bf16Pair;
  using Number = float;
  using Operand = __m512bh;
  using Sum = __m512;
  static constexpr int64_t kNumbers = 16;
  static Sum zero() { return Floats::zero(); }
  static Operand all(Bf16Pair v) { return Operand(_mm512_set1_epi32(int(v.bits))); }
  static Operand load(const Bf16Pair* p) { return Operand(_mm512_loadu_si512(p)); }
  static Sum load_sum(const float* p) { return Floats::load_sum(p); }
  static Sum load_some(const float* p, int64_t n) { return Floats::load_some(p, n); }
  static void store(float* p, Sum v) { Floats::store(p, v); }
  static void store_some(float* p, Sum v, int64_t n) { Floats::store_some(p, v, n); }
  static Sum fma(Operand a, Operand b, Sum c) { return _mm512_dpbf16_ps(c, a, b); }
};

/// Element l of up to 16 lanes, as the halves of pairs.
__m512i halves(const uint16_t* from, int64_t n) {
  return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(_mm512_maskz_loadu_epi16(first(n), from)));
}

void pack_pairs(Bf16Pair* packed, int64_t width, int64_t lanes, int64_t k, const uint16_t* from, int64_t lane_stride,
                int64_t k_stride) {
  float* const to = reinterpret_cast<float*>(packed);  // 32 bits, moved as they are
  if (lane_stride == 1)
    return pack_rows(to, width, lanes, (k + 1) / 2, [=](int64_t l, int64_t lane, int64_t n) {
      const uint16_t* const low = from + 2 * l * k_stride + lane;
      const __m512i high = 2 * l + 1 < k ? halves(low + k_stride, n) : _mm512_setzero_si512();
      return _mm512_castsi512_ps(_mm512_or_si512(halves(low, n), _mm512_slli_epi32(high, 16)));
    });
  if (k_stride == 1)
    return pack_transposed(
        to, width, lanes, (k + 1) / 2,
        [=](int64_t lane, int64_t l) {
          const uint16_t* const at = from + lane * lane_stride + 2 * l;
          const __mmask8 some = k - 2 * l >= 8 ? 0xff : 0x7f;
          return _mm_castsi128_ps(_mm_maskz_loadu_epi16(some, at));
        },
        [=](int64_t lane, int64_t l) {
          const uint16_t* const at = from + lane * lane_stride + 2 * l;
          return _mm_cvtss_f32(
              _mm_castsi128_ps(_mm_cvtsi32_si128(int(uint32_t(at[0]) | (2 * l + 1 < k ? uint32_t(at[1]) << 16 : 0)))));
        });
  for (int64_t l = 0; l < k; l += 2, packed += width)
    for (int64_t lane = 0; lane < width; ++lane) {
      const uint16_t* const low = from + lane * lane_stride + l * k_stride;
      packed[lane].bits = lane >= lanes ? 0 : uint32_t(*low) | (l + 1 < k ? uint32_t(low[k_stride]) << 16 : 0);
    }
}

}  // namespace

const GemmPairs kGemmPairsAvx512 = {{kRows, Pairs::kNumbers, any_tile<Pairs, kRows>}, pack_pairs};

}  // namespace agon::cpu
