#pragma once
#include "core/tensor.h"
#include "ops/cpu/gemm.h"

namespace agon::cpu {

/// A tensor's rows (all extents but the last) as a matrix for the GEMM.
inline ConstMatrix matrix(const Tensor& t) { return {t.address(), t.dtype(), t.shape(-1), 1}; }
/// The same to be written: a Tensor is a handle.
inline Matrix output(const Tensor& t) { return {const_cast<void*>(t.address()), t.dtype(), t.shape(-1)}; }

}  // namespace agon::cpu
