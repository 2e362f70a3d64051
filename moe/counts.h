#pragma once
#include "core/tensor.h"

// How many pairs each expert has: [S, E] f64 on the device of the pairs, whole numbers. scope_offsets [S+1] i32 on the
// same device.

namespace agon {

/// Pairs per scope and expert: expert [N] i32, token_offsets [T+1] i32 -> [S, E] f64.
Tensor count_experts(const Tensor& expert, const Tensor& token_offsets, const Tensor& scope_offsets, int64_t experts);

/// The scope_offsets {0, tokens}.
Tensor one_scope(int64_t tokens, Device device);

/// Each row of counts over its sum; 0 for a scope without pairs.
Tensor shares_of(const Tensor& counts);

/// counts += more, in place; equal sizes.
void add_counts(const Tensor& counts, const Tensor& more);

struct CountExperts {
  static void cpu(const Tensor& counts, const Tensor& expert, const Tensor& token_offsets, const Tensor& scope_offsets);
  static void cuda(const Tensor& counts, const Tensor& expert, const Tensor& token_offsets,
                   const Tensor& scope_offsets);
};

struct SharesOf {
  static void cpu(const Tensor& share, const Tensor& counts);
  static void cuda(const Tensor& share, const Tensor& counts);
};

struct AddCounts {
  static void cpu(const Tensor& counts, const Tensor& more);
  static void cuda(const Tensor& counts, const Tensor& more);
};

}  // namespace agon
