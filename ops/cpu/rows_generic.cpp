namespace {
constexpr int kRegisterBytes = 16;
}
#include "ops/cpu/rows_loops.h"

namespace agon::cpu {

const RowInstructions kRowsGeneric = {"generic", kernels<float>(), kernels<bf16>()};
const RowKernels<double> kRowsDouble = kernels<double>();

}  // namespace agon::cpu
