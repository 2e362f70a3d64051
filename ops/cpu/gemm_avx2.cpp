#include <immintrin.h>

#include "ops/cpu/gemm_tile.h"

// Compiled for AVX2 and FMA and reached only where the processor has them; see gemm_kernels.h about includes.
namespace agon::cpu {
namespace {

/// The first n of 8 (of 4) lanes.
__m256i first_of_8(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
__m256i first_of_4(int64_t n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }

struct Floats {
  using Packed = float;
  using Number = float;
  using Operand = __m256;
  using Sum = __m256;
  static constexpr int64_t kNumbers = 8;
  static Sum zero() { return _mm256_setzero_ps(); }
  static Operand all(float v) { return _mm256_set1_ps(v); }
  static Operand load(const float* p) { return _mm256_loadu_ps(p); }
  static Sum load_sum(const float* p) { return _mm256_loadu_ps(p); }
  static Sum load_some(const float* p, int64_t n) { return _mm256_maskload_ps(p, first_of_8(n)); }
  static void store(float* p, Sum v) { _mm256_storeu_ps(p, v); }
  static void store_some(float* p, Sum v, int64_t n) { _mm256_maskstore_ps(p, first_of_8(n), v); }
  static Sum fma(Operand a, Operand b, Sum c) { return _mm256_fmadd_ps(a, b, c); }
};

struct Doubles {
  using Packed = double;
  using Number = double;
  using Operand = __m256d;
  using Sum = __m256d;
  static constexpr int64_t kNumbers = 4;
  static Sum zero() { return _mm256_setzero_pd(); }
  static Operand all(double v) { return _mm256_set1_pd(v); }
  static Operand load(const double* p) { return _mm256_loadu_pd(p); }
  static Sum load_sum(const double* p) { return _mm256_loadu_pd(p); }
  static Sum load_some(const double* p, int64_t n) { return _mm256_maskload_pd(p, first_of_4(n)); }
  static void store(double* p, Sum v) { _mm256_storeu_pd(p, v); }
  static void store_some(double* p, Sum v, int64_t n) { _mm256_maskstore_pd(p, first_of_4(n), v); }
  static Sum fma(Operand a, Operand b, Sum c) { return _mm256_fmadd_pd(a, b, c); }
};

constexpr int kRows = 6;  // 12 sums, 2 of b and 1 of a: 15 of the 16 registers

/// How numbers in memory become floats, for the packing.
struct FromFloat {
  using Number = float;
  static float one(float v) { return v; }
  static __m256 eight(const float* p) { return _mm256_loadu_ps(p); }
  static __m256 four_and_four(const float* p, const float* q) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1);
  }
};
struct FromBf16 {
  using Number = uint16_t;
  static float one(uint16_t v) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(int(uint32_t(v) << 16)))); }
  static __m256 widen(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
  static __m256 eight(const uint16_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static __m256 four_and_four(const uint16_t* p, const uint16_t* q) {
    return widen(_mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))));
  }
};

/// to[l * width + lane] = from[lane * lane_stride + l] for 8 lanes and 4 values of l.
template <class F>
void transpose_8_by_4(float* to, int64_t width, const typename F::Number* from, int64_t lane_stride) {
  const auto two_lanes = [&](int64_t lane) {
    return F::four_and_four(from + lane * lane_stride, from + (lane + 4) * lane_stride);
  };
  const __m256 r0 = two_lanes(0), r1 = two_lanes(1), r2 = two_lanes(2), r3 = two_lanes(3);
  const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1)),
                high01 = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
  const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3)),
                high23 = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
  _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23)));
  _mm256_storeu_ps(to + width, _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23)));
  _mm256_storeu_ps(to + 2 * width, _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23)));
  _mm256_storeu_ps(to + 3 * width, _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23)));
}

/// Eight lanes at a time; where `lanes` is no multiple of 8 the last eight overlap the ones before.
template <class F>
void pack(float* to, int64_t width, int64_t lanes, int64_t k, const typename F::Number* from, int64_t lane_stride,
          int64_t k_stride) {
  if (lanes < 8 || (lane_stride != 1 && k_stride != 1))
    return pack_plainly(to, width, lanes, k, from, lane_stride, k_stride, F::one);
  const auto each_eight = [&](auto&& f) {
    for (int64_t lane = 0; lane + 8 <= lanes; lane += 8) f(lane);
    if (lanes % 8) f(lanes - 8);
  };
  int64_t l = 0;
  if (lane_stride == 1) {
    for (; l < k; ++l)
      each_eight([&](int64_t lane) { _mm256_storeu_ps(to + l * width + lane, F::eight(from + l * k_stride + lane)); });
  } else {
    each_eight([&](int64_t lane) {
      for (l = 0; l + 4 <= k; l += 4)
        transpose_8_by_4<F>(to + l * width + lane, width, from + lane * lane_stride + l, lane_stride);
    });
    pack_plainly(to + l * width, width, lanes, k - l, from + l, lane_stride, 1, F::one);
  }
  for (l = 0; lanes < width && l < k; ++l)
    for (int64_t lane = lanes; lane < width; ++lane) to[l * width + lane] = 0;
}

}  // namespace

void pack_avx2(float* to, int64_t width, int64_t lanes, int64_t k, const float* from, int64_t lane_stride,
               int64_t k_stride) {
  pack<FromFloat>(to, width, lanes, k, from, lane_stride, k_stride);
}

void pack_avx2(double* to, int64_t width, int64_t lanes, int64_t k, const double* from, int64_t lane_stride,
               int64_t k_stride) {
  pack_plainly(to, width, lanes, k, from, lane_stride, k_stride, [](double v) { return v; });
}

void pack_bf16_avx2(float* to, int64_t width, int64_t lanes, int64_t k, const uint16_t* from, int64_t lane_stride,
                    int64_t k_stride) {
  pack<FromBf16>(to, width, lanes, k, from, lane_stride, k_stride);
}

void round_to_bf16_avx2(uint16_t* to, const float* from, int64_t n) {
  const auto round = [](__m256 v) {  // as bf16(float): to nearest even, NaN becomes 0x7fff
    const __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i wide = _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fff), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), round(_mm256_loadu_ps(from + i)));
  for (; i < n; ++i) to[i] = uint16_t(_mm_extract_epi16(round(_mm256_set1_ps(from[i])), 0));
}

const GemmInstructions kGemmAvx2 = {
    "avx2",
    {kRows, Floats::kNumbers, any_tile<Floats, kRows>},
    {kRows, Doubles::kNumbers, any_tile<Doubles, kRows>},
    pack_avx2,
    pack_avx2,
    pack_bf16_avx2,
    round_to_bf16_avx2,
    nullptr,
};

}  // namespace agon::cpu
