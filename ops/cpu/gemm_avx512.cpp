#include "ops/cpu/gemm_avx512.h"

// Compiled for AVX-512F and reached only where the processor has it; see gemm_kernels.h about includes.
namespace agon::cpu {
namespace {

struct Doubles {
  using Packed = double;
  using Number = double;
  using Operand = __m512d;
  using Sum = __m512d;
  static constexpr int64_t kNumbers = 8;
  static Sum zero() { return _mm512_setzero_pd(); }
  static Operand all(double v) { return _mm512_set1_pd(v); }
  static Operand load(const double* p) { return _mm512_loadu_pd(p); }
  static Sum load_sum(const double* p) { return _mm512_loadu_pd(p); }
  static Sum load_some(const double* p, int64_t n) { return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p); }
  static void store(double* p, Sum v) { _mm512_storeu_pd(p, v); }
  static void store_some(double* p, Sum v, int64_t n) { _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v); }
  static Sum fma(Operand a, Operand b, Sum c) { return _mm512_fmadd_pd(a, b, c); }
};

void pack_f32(float* to, int64_t width, int64_t lanes, int64_t k, const float* from, int64_t lane_stride,
              int64_t k_stride) {
  if (lane_stride == 1)
    return pack_rows(to, width, lanes, k, [=](int64_t l, int64_t lane, int64_t n) {
      return _mm512_maskz_loadu_ps(first(n), from + l * k_stride + lane);
    });
  if (k_stride == 1)
    return pack_transposed(
        to, width, lanes, k, [=](int64_t lane, int64_t l) { return _mm_loadu_ps(from + lane * lane_stride + l); },
        [=](int64_t lane, int64_t l) { return from[lane * lane_stride + l]; });
  pack_plainly(to, width, lanes, k, from, lane_stride, k_stride, [](float v) { return v; });
}

__m512 widen(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }

/// n <= 16 of bf16 as floats. AVX-512F alone has no masked load of 16-bit numbers.
__m512 widened(const uint16_t* from, int64_t n) {
  if (n >= 16) return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  alignas(32) uint16_t some[16] = {};
  for (int64_t i = 0; i < n; ++i) some[i] = from[i];
  return widen(_mm256_load_si256(reinterpret_cast<const __m256i*>(some)));
}

void pack_bf16(float* to, int64_t width, int64_t lanes, int64_t k, const uint16_t* from, int64_t lane_stride,
               int64_t k_stride) {
  if (lane_stride == 1)
    return pack_rows(to, width, lanes, k,
                     [=](int64_t l, int64_t lane, int64_t n) { return widened(from + l * k_stride + lane, n); });
  pack_bf16_avx2(to, width, lanes, k, from, lane_stride, k_stride);
}

}  // namespace

const GemmInstructions kGemmAvx512 = {
    "avx512",
    {kRows, Floats::kNumbers, any_tile<Floats, kRows>},
    {kRows, Doubles::kNumbers, any_tile<Doubles, kRows>},
    pack_f32,
    pack_avx2,
    pack_bf16,
    round_to_bf16_avx2,
    nullptr,
};

}  // namespace agon::cpu
