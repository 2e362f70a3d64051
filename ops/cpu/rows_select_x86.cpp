#include "ops/cpu/rows.h"

namespace agon::cpu {

const RowInstructions* row_instructions(int i) {
  __builtin_cpu_init();  // may run before main
  const bool avx2 = __builtin_cpu_supports("avx2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
  const RowInstructions* sets[] = {&kRowsAvx512, &kRowsAvx2, &kRowsGeneric, nullptr};
  const int first = avx512 ? 0 : avx2 ? 1 : 2;
  return i < 3 - first ? sets[first + i] : nullptr;
}

}  // namespace agon::cpu
