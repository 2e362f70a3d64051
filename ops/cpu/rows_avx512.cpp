namespace {
constexpr int kRegisterBytes = 64;
}
#include "ops/cpu/rows_loops.h"

// Compiled for AVX-512F and reached only where the processor has it.
namespace agon::cpu {

const RowInstructions kRowsAvx512 = {"avx512", kernels<float>(), kernels<bf16>()};

}  // namespace agon::cpu
