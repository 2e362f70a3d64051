#pragma once
#include <vector>

#include "distributed/communicator.h"
#include "moe/routing.h"

namespace agon {

/// The way of tokens to the ranks of their experts and back. A token's row goes once to each rank that has experts of
/// its, together with the list of them; what stays on this rank crosses no network. Partial sums come home and are
/// added per token in rank order. On one rank nothing moves and every function returns what it is given.
///
/// Making one and calling out, out_weight, home and rows_home, and their backward passes, are collective. Counts are
/// exchanged exactly: one wait per journey.
class Journey {
 public:
  /// expert e of `experts` belongs to rank e / (experts / comm.size()). `plan` is that of `pairs`.
  Journey(const Pairs& pairs, const Plan& plan, int64_t experts, Communicator& comm);

  /// What has arrived here, M rows with P pairs among this rank's experts: tokens by source rank, in their order.
  const Plan& plan() const { return arrived_; }

  Tensor out(const Tensor& x) const;              // [T, D] -> [M, D]
  Tensor out_weight(const Tensor& weight) const;  // [N] -> [P]
  /// The sum of what the ranks made of each token: [M, D] -> [T, D].
  Tensor home(const Tensor& y) const;
  /// Experts' answers, uncombined, from the order of plan() to that of the plan of `pairs`: [P, D] -> [N, D].
  Tensor rows_home(const Tensor& rows) const;

 private:
  Communicator& comm_;
  Plan pairs_;    // of the pairs here, rows sorted by expert
  Plan arrived_;  // of the pairs that arrived, by this rank's expert
  Plan by_rank_;  // of the pairs here, "expert" being the rank it belongs to
  Plan visits_;   // of the different (token, rank) among them
  std::vector<int64_t> rows_out_, rows_in_, pairs_out_, pairs_in_;  // per rank
};

}  // namespace agon
