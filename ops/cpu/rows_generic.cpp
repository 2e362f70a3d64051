namespace {
constexpr int kRegisterBytes = 16;
}
#include "ops/cpu/rows_loops.h"

namespace agon::cpu {

const RowInstructions kRowsGeneric = {"generic", kernels<float>(), kernels<bf16>(), update_kernels_of<float>(),
                                      choice_kernels_of<float>()};
const RowKernels<double> kRowsDouble = kernels<double>();
const UpdateKernels<double> kUpdateDouble = update_kernels_of<double>();
const ChoiceKernels<double> kChoiceDouble = choice_kernels_of<double>();

}  // namespace agon::cpu
