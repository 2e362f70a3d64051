#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/row_avx2.h"

// Compiled for AVX2 and FMA and reached only where the processor has them.
namespace agon::cpu {
namespace {

inline Register<float> fma(Register<float> a, Register<float> b, Register<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline Register<double> fma(Register<double> a, Register<double> b, Register<double> c) {
  return _mm256_fmadd_pd(a, b, c);
}

}  // namespace
}  // namespace agon::cpu

#include "ops/cpu/attention_loops.h"

namespace agon::cpu {

const AttentionInstructions kAttentionAvx2 = {"avx2", attention_kernels_of<float>(), attention_kernels_of<bf16>(),
                                              attention_kernels_of<double>()};

}  // namespace agon::cpu
