namespace {
constexpr int kRegisterBytes = 16;
}
#include "ops/cpu/row_lanes.h"

namespace agon::cpu {
namespace {

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

/// Exact everywhere, and slow where there is no instruction.
template <class R>
R fma(const R& a, const R& b, const R& c) {
  R r;
  for (unsigned i = 0; i < sizeof(R) / sizeof(a[0]); ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
}

}  // namespace
}  // namespace agon::cpu

#include "ops/cpu/attention_loops.h"

namespace agon::cpu {

const AttentionInstructions kAttentionGeneric = {"generic", attention_kernels_of<float>(), attention_kernels_of<bf16>(),
                                                 attention_kernels_of<double>()};

}  // namespace agon::cpu
