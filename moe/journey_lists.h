#pragma once
#include <optional>
#include <vector>

#include "distributed/exchange.h"
#include "moe/leaving.h"
#include "moe/routing.h"

namespace agon {

/// options.bound times what even routing sends from one rank to another of `ranks`, rounded up, and no more than all:
/// `tokens` on a rank, each with experts_per_token different experts, all as likely.
ExchangeBounds bounds_of(const ExchangeOptions& options, int64_t tokens, double experts_per_token, int64_t experts,
                         int ranks);

/// Where a rank's rows and pairs go, and where those that come are put. A row goes to each other rank that has experts
/// of the token's; a pair of such an expert goes with it, and takes a slot of its own. What has arrived: the rank's own
/// T tokens and the pairs that stay, then rows and pairs by source rank, in the order of their tokens.
///
/// Numbers name rows of two tensors (two_sources.h): of what comes from other ranks, and of what is here.
struct JourneyLists {
  std::vector<int64_t> rows_out, rows_in, pairs_out, pairs_in;  // of each rank; its own: 0

  Tensor leaving_rows;   // [sum(rows_out)]: the token
  Tensor visits;         // [N]: the rows made of each token, by rank: among those that return, or the token's own
  Tensor visit_offsets;  // [T+1], of `visits`

  Tensor leaving_pairs;    // [sum(pairs_out)]: the pair
  Tensor home_pairs;       // [N]: its slot among those that return, or the arrived pair
  Tensor arrived_pairs;    // [P]: the slot among those that came, or the pair
  Tensor returning_pairs;  // [sum(pairs_in)]: the arrived pair

  Plan plan;             // of the T + sum(rows_in) rows and P pairs that arrived, by this rank's expert
  int64_t dropped = 0;   // pairs that did not fit
  int64_t own_rows = 0;  // T; 0 where they travel too
};

/// Collective. All ranks give the same experts, options and bounds. With bounds, sizes of tensors and messages depend
/// on them, T and N alone, and a row that does not fit stays here with all its pairs: to each rank, the last tokens'.
/// What crosses, in bytes from rank to rank: 4 per pair, for its expert and whether it is the first of a row; without
/// bounds 4 before, for the number of pairs.
JourneyLists make_journey_lists(const Pairs& pairs, int64_t experts, Communicator& comm, bool own_too,
                                const std::optional<ExchangeBounds>& bounds);

/// [n] numbers of pairs -> those of their rows in a plan.
Tensor rows_of(const Tensor& pairs, const Plan& plan);
/// What a tensor in the order of `rows` is made of: source[i] is where pair i comes from, as home_pairs and
/// arrived_pairs say; a pair that is here counts by its row in `other`.
Tensor sources_by_row(const Plan& rows, const Tensor& source, const Plan& other);

}  // namespace agon
