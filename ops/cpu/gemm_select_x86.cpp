#include "ops/cpu/gemm_kernels.h"

namespace agon::cpu {

const GemmInstructions* gemm_instructions(int i) {
  __builtin_cpu_init();  // may run before main
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
  const GemmInstructions* sets[] = {&kGemmAvx512, &kGemmAvx2, &kGemmGeneric, nullptr};
  const int first = avx512 ? 0 : avx2 ? 1 : 2;
  return i < 3 - first ? sets[first + i] : nullptr;
}

}  // namespace agon::cpu
