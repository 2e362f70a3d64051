#pragma once
#include "core/random.h"
#include "core/tensor.h"

namespace agon {

/// Zeroes each element with the given probability and scales the others by 1 / (1 - probability). Element i of row r of
/// x [..., D] depends on (key, first_row + r, i) alone: ranks and micro-batches pass the global number of their first
/// row. It is kept where uniform(word i mod 4 of philox(key.with(row), i / 4)) >= probability, which is in [0, 1).
Tensor dropout(const Tensor& x, double probability, RandomKey key, int64_t first_row = 0);

struct Dropout {
  /// The gradient is the same function of dy.
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, double probability, RandomKey key, int64_t first_row);
    static void cuda(const Tensor& y, const Tensor& x, double probability, RandomKey key, int64_t first_row);
  };
};

}  // namespace agon
