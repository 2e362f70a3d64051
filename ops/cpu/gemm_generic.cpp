#include <cmath>

#include "core/dtype.h"
#include "ops/cpu/gemm_tile.h"

namespace agon::cpu {
namespace {

/// A register of four numbers, for any processor. std::fma is exact everywhere, and slow where there is no instruction.
template <class T>
struct Four {
  using Packed = T;
  using Number = T;
  struct Register {
    T v[4];
  };
  using Operand = Register;
  using Sum = Register;
  static constexpr int64_t kNumbers = 4;
  static Register zero() { return {}; }
  static Register all(T x) { return {{x, x, x, x}}; }
  static Register load(const T* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Register load_sum(const T* p) { return load(p); }
  static Register load_some(const T* p, int64_t n) {
    Register r{};
    for (int64_t i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  static void store(T* p, const Register& r) { store_some(p, r, 4); }
  static void store_some(T* p, const Register& r, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = r.v[i];
  }
  static Register fma(const Register& a, const Register& b, const Register& c) {
    return {{std::fma(a.v[0], b.v[0], c.v[0]), std::fma(a.v[1], b.v[1], c.v[1]), std::fma(a.v[2], b.v[2], c.v[2]),
             std::fma(a.v[3], b.v[3], c.v[3])}};
  }
};

template <class T>
void pack(T* to, int64_t width, int64_t lanes, int64_t k, const T* from, int64_t lane_stride, int64_t k_stride) {
  pack_plainly(to, width, lanes, k, from, lane_stride, k_stride, [](T v) { return v; });
}

void pack_bf16(float* to, int64_t width, int64_t lanes, int64_t k, const uint16_t* from, int64_t lane_stride,
               int64_t k_stride) {
  pack_plainly(to, width, lanes, k, from, lane_stride, k_stride,
               [](uint16_t v) { return float(std::bit_cast<bf16>(v)); });
}

void round_to_bf16(uint16_t* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = bf16(from[i]).bits;
}

constexpr int kRows = 4;

}  // namespace

const GemmInstructions kGemmGeneric = {
    "generic",
    {kRows, Four<float>::kNumbers, any_tile<Four<float>, kRows>},
    {kRows, Four<double>::kNumbers, any_tile<Four<double>, kRows>},
    pack<float>,
    pack<double>,
    pack_bf16,
    round_to_bf16,
    nullptr,
};

}  // namespace agon::cpu
