#pragma once
#include <immintrin.h>

#include "ops/cpu/gemm_tile.h"

// What the two sets with AVX-512 share; like gemm_tile.h local to each including file, which is compiled for AVX-512F.
namespace agon::cpu {
namespace {

/// The first n of 16 lanes; n may be anything.
inline __mmask16 first(int64_t n) { return __mmask16(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1); }

struct Floats {
  using Packed = float;
  using Number = float;
  using Operand = __m512;
  using Sum = __m512;
  static constexpr int64_t kNumbers = 16;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand all(float v) { return _mm512_set1_ps(v); }
  static Operand load(const float* p) { return _mm512_loadu_ps(p); }
  static Sum load_sum(const float* p) { return _mm512_loadu_ps(p); }
  static Sum load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, Sum v) { _mm512_storeu_ps(p, v); }
  static void store_some(float* p, Sum v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static Sum fma(Operand a, Operand b, Sum c) { return _mm512_fmadd_ps(a, b, c); }
};

constexpr int kRows = 14;  // 28 sums, 2 of b and 1 of a: 31 of the 32 registers

/// Writes `width` lanes at `at`, whole registers where the excess lies before `end` and is written later.
inline void put(float* at, const float* end, __mmask16 some, __m512 v) {
  at + 16 <= end ? _mm512_storeu_ps(at, v) : _mm512_mask_storeu_ps(at, some, v);
}

/// GemmPack of elements of 32 bits where each lane's are adjacent: four(lane, l) reads four of them from l on,
/// one(lane, l) a single one. Quarters of registers are loaded where they belong, which leaves two rounds of shuffles
/// to transpose. kLanes: the number of lanes where it is known, which saves the questions.
template <int kLanes, class Four, class One>
void pack_transposed(float* to, int64_t width, int64_t lanes, int64_t k, Four&& four, One&& one) {
  if (kLanes > 0) lanes = kLanes;
  const float* const end = to + k * width;
  for (int64_t lane = 0; lane < width; lane += 16) {
    const __mmask16 some = first(width - lane);
    int64_t l = 0;
    for (; l + 4 <= k; l += 4) {
      __m512 r[4];  // quarter q of r[i]: four elements of lane 4 q + i
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_setzero_ps();
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q)
          if (kLanes > 0 && kLanes <= 16 ? 4 * q + i < kLanes : kLanes == 32 || lane + 4 * q + i < lanes)
            r[i] = _mm512_mask_broadcast_f32x4(r[i], __mmask16(0xf << 4 * q), four(lane + 4 * q + i, l));
      }
      const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1])),
                    b = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1])),
                    c = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3])),
                    d = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
      float* const at = to + l * width + lane;
      if (width <= 16) {
        put(at, end, some, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
        put(at + width, end, some, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
        put(at + 2 * width, end, some, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
        put(at + 3 * width, end, some, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
      } else {
        _mm512_mask_storeu_ps(at, some, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
        _mm512_mask_storeu_ps(at + width, some, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
        _mm512_mask_storeu_ps(at + 2 * width, some, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
        _mm512_mask_storeu_ps(at + 3 * width, some, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
      }
    }
    for (; l < k; ++l)
      for (int64_t i = lane; i < lane + 16 && i < width; ++i) to[l * width + i] = i < lanes ? one(i, l) : 0;
  }
}
template <class Four, class One>
void pack_transposed(float* to, int64_t width, int64_t lanes, int64_t k, Four&& four, One&& one) {
  if (width == 32 && lanes == 32) return pack_transposed<32>(to, 32, 32, k, four, one);
  if (width == 14 && lanes == 14) return pack_transposed<14>(to, 14, 14, k, four, one);
  if (width == 13 && lanes == 13) return pack_transposed<13>(to, 13, 13, k, four, one);
  if (width == 12 && lanes == 12) return pack_transposed<12>(to, 12, 12, k, four, one);
  pack_transposed<0>(to, width, lanes, k, four, one);
}

/// The same where lanes are adjacent: row(l, lane, n) reads element l of n <= 16 lanes.
template <class Row>
void pack_rows(float* to, int64_t width, int64_t lanes, int64_t k, Row&& row) {
  const float* const end = to + k * width;
  if (width == lanes && width == 32) {
    for (int64_t l = 0; l < k; ++l, to += 32) {
      _mm512_storeu_ps(to, row(l, 0, 16));
      _mm512_storeu_ps(to + 16, row(l, 16, 16));
    }
  } else if (width <= 16) {
    const __mmask16 some = first(width);
    for (int64_t l = 0; l < k; ++l, to += width) put(to, end, some, row(l, 0, lanes));
  } else {
    for (int64_t l = 0; l < k; ++l, to += width)
      for (int64_t lane = 0; lane < width; lane += 16)
        _mm512_mask_storeu_ps(to + lane, first(width - lane), row(l, lane, lanes - lane));
  }
}

}  // namespace
}  // namespace agon::cpu
