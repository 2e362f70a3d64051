#include <immintrin.h>

#include "ops/cpu/gemm_tile.h"

// Compiled for AVX-512F and reached only where the processor has it; see gemm_kernels.h about includes.
namespace agon::cpu {
namespace {

struct Floats {
  using Number = float;
  using Register = __m512;
  static constexpr int64_t kNumbers = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register all(float v) { return _mm512_set1_ps(v); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static Register load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
  static void store(float* p, Register v) { _mm512_storeu_ps(p, v); }
  static void store_some(float* p, Register v, int64_t n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v); }
  static Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

struct Doubles {
  using Number = double;
  using Register = __m512d;
  static constexpr int64_t kNumbers = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register all(double v) { return _mm512_set1_pd(v); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static Register load_some(const double* p, int64_t n) { return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p); }
  static void store(double* p, Register v) { _mm512_storeu_pd(p, v); }
  static void store_some(double* p, Register v, int64_t n) { _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v); }
  static Register fma(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }
};

constexpr int kRows = 14;  // 28 sums, 2 of b and 1 of a: 31 of the 32 registers

}  // namespace

const GemmInstructions kGemmAvx512 = {
    "avx512",
    {kRows, Floats::kNumbers, any_tile<Floats, kRows>, pack_avx2},
    {kRows, Doubles::kNumbers, any_tile<Doubles, kRows>, pack_avx2},
    pack_bf16_avx2,
    round_to_bf16_avx2,
};

}  // namespace agon::cpu
