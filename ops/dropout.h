#pragma once
#include "core/random.h"
#include "core/tensor.h"

namespace agon {

/// Zeroes each element with the given probability and scales the others by 1 / (1 - probability). Element i of row r of
/// x [..., D] depends on (key, first_row + r, i) alone: ranks and micro-batches pass the global number of their first row.
Tensor dropout(const Tensor& x, double probability, RandomKey key, int64_t first_row = 0);

}  // namespace agon
