#pragma once
#include <span>

#include "core/dtype.h"

namespace agon {

/// Adds n elements of f32, bf16, f64 or i32 at each address of `from`, in that order (bf16 in f32, i32 in 64 bits,
/// rounded once), and writes the sums to each address of `to`, which may be among `from`.
void sum_in_order(DType dtype, int64_t n, std::span<const void* const> from, std::span<void* const> to);

}  // namespace agon
