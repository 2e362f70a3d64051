#pragma once
#include <memory>
#include <optional>

#include "moe/journey_lists.h"

namespace agon {

/// The way of tokens to the ranks of their experts and back. A token's row goes once to each other rank that has
/// experts of its; what stays here moves nowhere. Partial sums come home and are added per token in rank order. On one
/// rank nothing moves and every function returns what it is given.
///
/// Making one and calling out, out_weight, home and rows_home, and their backward passes, are collective. What crosses
/// is the least there is to say. With n the (token, other rank) of which the rank has experts of the token's, p the
/// pairs of such experts, and s the size of a row's element on its way, a rank sends, and others to it likewise,
///   making one     4 p for the pairs' experts, and 4 for each other rank
///   out            n D s; backward what it received of them
///   out_weight     the size of p weights; backward what it received of them
///   home           what it received in `out`; backward n D s
///   rows_home      D s for each pair it received; backward p D s
/// With bounds, these are the bounds' rows and pairs per rank, and the 4 for each rank are saved.
class Journey {
 public:
  /// expert e of `experts` belongs to rank e / (experts / comm.size()). `plan` is that of `pairs`. `bounds` is for
  /// options.bounded alone.
  Journey(const Pairs& pairs, const Plan& plan, int64_t experts, Communicator& comm,
          const ExchangeOptions& options = {}, const std::optional<ExchangeBounds>& bounds = {});

  /// What is here after `out`, M rows with P pairs among this rank's experts: the own T tokens, then those that came,
  /// by source rank, in their order.
  const Plan& plan() const { return way_ ? way_->lists.plan : here_; }
  /// Pairs that did not fit the bounds: they have no expert, their rows of rows_home are 0, as is their weight's
  /// gradient.
  int64_t dropped() const { return way_ ? way_->lists.dropped : 0; }

  Tensor out(const Tensor& x) const;              // [T, D] -> [M, D]
  Tensor out_weight(const Tensor& weight) const;  // [N] -> [P]
  /// The sum of what the ranks made of each token: [M, D] -> [T, D].
  Tensor home(const Tensor& y) const;
  /// Experts' answers, uncombined, from the order of plan() to that of the plan of `pairs`: [P, D] -> [N, D].
  Tensor rows_home(const Tensor& rows) const;

 private:
  struct Way {
    JourneyLists lists;
    Communicator& comm;
    bool bf16;

    Tensor spread(const Tensor& of_tokens) const;         // [T, D] -> [M, D]
    Tensor gathered(const Tensor& of_arrived) const;      // [M, D] -> [T, D]
    Tensor to_experts(const Tensor& of_pairs) const;      // [N] -> [P]
    Tensor from_experts(const Tensor& of_arrived) const;  // [P] -> [N]
  };

  Plan here_;                       // of `pairs`
  std::shared_ptr<const Way> way_;  // empty where nothing moves
};

}  // namespace agon
