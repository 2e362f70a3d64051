#include "ops/cpu/peak_loop.h"

namespace agon::cpu {

PeakLoop widest_peak_loop() { return {run_portable, 4}; }

}  // namespace agon::cpu
