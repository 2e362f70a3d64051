#include "ops/cpu/rows.h"

namespace agon::cpu {

const RowInstructions* row_instructions(int i) { return i == 0 ? &kRowsGeneric : nullptr; }

}  // namespace agon::cpu
