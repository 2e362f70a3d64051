#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/row_avx512.h"

// Compiled for AVX-512F and reached only where the processor has it.
namespace agon::cpu {
namespace {

inline Register<float> fma(Register<float> a, Register<float> b, Register<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline Register<double> fma(Register<double> a, Register<double> b, Register<double> c) {
  return _mm512_fmadd_pd(a, b, c);
}

/// Quarters of registers are loaded where they belong, which leaves two rounds of shuffles.
inline void turn_sixteen(float* to, const float* from) {
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += 4, to += 4 * kAttentionTile, from += 4) {
    __m512 r[4];  // quarter q of r[i]: four numbers of row 4 q + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm512_setzero_ps();
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q)
        r[i] = _mm512_mask_broadcast_f32x4(r[i], __mmask16(0xf << 4 * q),
                                           _mm_loadu_ps(from + (4 * q + i) * kAttentionTile));
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1])),
                  b = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1])),
                  c = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3])),
                  d = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    _mm512_storeu_ps(to + kAttentionTile, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    _mm512_storeu_ps(to + 2 * kAttentionTile, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    _mm512_storeu_ps(to + 3 * kAttentionTile, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
  }
}

}  // namespace
}  // namespace agon::cpu

#include "ops/cpu/attention_loops.h"

namespace agon::cpu {

const AttentionInstructions kAttentionAvx512 = {"avx512", attention_kernels_of<float>(), attention_kernels_of<bf16>(),
                                                attention_kernels_of<double>()};

}  // namespace agon::cpu
