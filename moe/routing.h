#pragma once
#include "core/tensor.h"

// Letters: T tokens of this rank's micro-batch, E experts over all ranks, N selected pairs, D width, F expert width.

namespace agon {

/// What a router selects: (token, expert) pairs, token-major. A token may have 0..E pairs, an expert 0..T.
struct Pairs {
  Tensor expert;  // [N] i32; within a token in the router's order of preference. N may be a bound: only the first
                  // token_offsets[T] entries count
  Tensor token_offsets;  // [T+1] i32, CSR
  Tensor weight;         // [N] f32 (f64), on the tape; empty where `weigh` makes the weights from the experts' rows
  Tensor logits;         // [T, E] f32 (f64), on the tape: what losses and statistics read
  Tensor scores;         // [T, E] f32 (f64), on the tape where they come from the logits: what the choice is made by

  // The choice before a capacity dropped pairs, as `expert` and `token_offsets`; the same tensors where nothing
  // dropped.
  Tensor chosen;          // [N] i32
  Tensor chosen_offsets;  // [T+1] i32

  Tensor affinity = {};  // [T, E] f32 (f64): every expert's answer as a score, without gradient; empty unless the
                         // experts compete
};

/// Where each pair's row sits once rows are sorted by expert, tokens in order within an expert (stable). Made from
/// Pairs::expert and token_offsets alone; every direction of the layer reads the same plan.
struct Plan {
  Tensor token_of_pair;  // [N] i32; -1 past the last pair
  Tensor pair_of_row;    // [N] i32; -1 past the last row in use
  Tensor row_of_pair;    // [N] i32; -1 past the last pair
  Tensor offsets;        // [E+1] i32: first row of each expert
  Tensor token_offsets;  // [T+1] i32, of the pairs
};

/// A stable counting sort of the pairs by expert: expert [N] i32 (entries from token_offsets[T] on are ignored),
/// token_offsets [T+1] i32 ascending from 0. On the CPU: throws Error when an expert is not in [0, experts) or offsets
/// do not ascend. A GPU takes both as given.
Plan make_plan(const Tensor& expert, const Tensor& token_offsets, int64_t experts);

struct MakePlan {
  /// Fills all of `plan` but token_offsets, which it reads.
  static void cpu(const Plan& plan, const Tensor& expert);
  static void cuda(const Plan& plan, const Tensor& expert);
};

}  // namespace agon
