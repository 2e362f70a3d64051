#include "ops/cpu/row_avx512.h"
#include "ops/cpu/rows_loops.h"

// Compiled for AVX-512F and reached only where the processor has it.
namespace agon::cpu {

const RowInstructions kRowsAvx512 = {"avx512", kernels<float>(), kernels<bf16>(), update_kernels_of<float>(),
                                     choice_kernels_of<float>()};

}  // namespace agon::cpu
