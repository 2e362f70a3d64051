#include "ops/cpu/gemm_kernels.h"

namespace agon::cpu {

namespace {

GemmInstructions avx512_with_bf16() {
  GemmInstructions set = kGemmAvx512;
  set.name = "avx512 with bf16";
  set.pairs = &kGemmPairsAvx512;
  return set;
}

}  // namespace

const GemmInstructions* gemm_instructions(int i) {
  __builtin_cpu_init();  // may run before main
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512bf16");
  static const GemmInstructions with_bf16 = avx512_with_bf16();
  const GemmInstructions* sets[] = {&with_bf16, &kGemmAvx512, &kGemmAvx2, &kGemmGeneric, nullptr};
  const int widest = bf16 ? 0 : avx512 ? 1 : avx2 ? 2 : 3;
  return i < 4 - widest ? sets[widest + i] : nullptr;
}

}  // namespace agon::cpu
