#pragma once
#include "core/random.h"
#include "core/tensor.h"

namespace agon {

/// x [T, D] times draws from [1 - amount, 1 + amount), 0 <= amount < 1 (Switch, arXiv 2101.03961): element d of row r
/// depends on (key, first_row + r, d) alone. Its factor is 1 + amount (2 u - 1), u = uniform(word d mod 4 of
/// philox(key, (first_row + r) ceil(D / 4) + d / 4)).
Tensor jitter(const Tensor& x, double amount, RandomKey key, int64_t first_row = 0);

struct Jitter {
  /// The gradient is the same function of dy.
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, double amount, RandomKey key, int64_t first_row);
    static void cuda(const Tensor& y, const Tensor& x, double amount, RandomKey key, int64_t first_row);

    template <class A>
    static constexpr A factor(double amount, uint32_t word) {
      return A(1) + A(amount) * (A(2) * A(uniform(word)) - A(1));
    }
  };
};

}  // namespace agon
