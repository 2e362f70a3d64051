#include "ops/cpu/row_avx2.h"
#include "ops/cpu/rows_loops.h"

// Compiled for AVX2 and reached only where the processor has it.
namespace agon::cpu {

const RowInstructions kRowsAvx2 = {"avx2", kernels<float>(), kernels<bf16>(), update_kernels_of<float>(),
                                   choice_kernels_of<float>()};

}  // namespace agon::cpu
