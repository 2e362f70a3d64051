#pragma once

namespace agon::cpu {

/// FLOP/s of the best register-resident fused multiply-add loop in f32: the widest instruction set the processor has,
/// on all threads of the pool, run for about `seconds`. What shares of peak are shares of.
double probe_peak(double seconds);

}  // namespace agon::cpu
