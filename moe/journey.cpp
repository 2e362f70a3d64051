#include "moe/journey.h"

#include <algorithm>
#include <utility>

#include "core/copy.h"
#include "distributed/exchange.h"
#include "moe/dispatch.h"

namespace agon {

namespace {

/// Rows of each rank in a plan by rank.
std::vector<int64_t> rows_per_rank(const Plan& plan) {
  const auto offset = plan.offsets.data<const int32_t>();
  std::vector<int64_t> n;
  for (size_t r = 0; r + 1 < offset.size(); ++r) n.push_back(offset[r + 1] - offset[r]);
  return n;
}

/// A list with an entry per row of the exchange, exchanged.
std::vector<int32_t> exchange_list(const std::vector<int32_t>& list, const std::vector<int64_t>& out,
                                   const std::vector<int64_t>& in, Communicator& comm) {
  const Tensor arrived = comm.all_to_all(tensor_of(list).reshape({int64_t(list.size()), 1}), out, in);
  const auto values = arrived.data<const int32_t>();
  return {values.begin(), values.end()};
}

}  // namespace

Journey::Journey(const Pairs& pairs, const Plan& plan, int64_t experts, Communicator& comm)
    : comm_(comm), pairs_(plan), arrived_(plan) {
  const int ranks = comm.size();
  if (ranks == 1) return;
  const int64_t local = experts / ranks;
  const auto expert = pairs.expert.data<const int32_t>(), token_offset = pairs.token_offsets.data<const int32_t>();
  const auto tokens = token_offset.size() - 1, used = size_t(token_offset[tokens]);

  std::vector<int32_t> rank_of_pair, rank_of_visit, visit_offset{0};
  for (size_t i = 0; i < used; ++i) rank_of_pair.push_back(int32_t(expert[i] / local));
  for (size_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> ranks_of_token(rank_of_pair.begin() + token_offset[t],
                                        rank_of_pair.begin() + token_offset[t + 1]);
    std::ranges::sort(ranks_of_token);
    const auto rest = std::ranges::unique(ranks_of_token);
    rank_of_visit.insert(rank_of_visit.end(), ranks_of_token.begin(), rest.begin());
    visit_offset.push_back(int32_t(rank_of_visit.size()));
  }
  by_rank_ = make_plan(tensor_of(rank_of_pair), pairs.token_offsets, ranks);
  visits_ = make_plan(tensor_of(rank_of_visit), tensor_of(visit_offset), ranks);
  rows_out_ = rows_per_rank(visits_);
  pairs_out_ = rows_per_rank(by_rank_);

  // In the order they travel: which expert each pair wants there, and how many pairs each visit has. A visit's pairs
  // are neighbours, because both plans sort by rank, then token.
  std::vector<int32_t> wanted, pairs_of_visit;
  std::pair<int32_t, int32_t> last{-1, -1};
  for (size_t n = 0; n < used; ++n) {
    const auto i = size_t(by_rank_.pair_of_row.data<const int32_t>()[n]);
    wanted.push_back(int32_t(expert[i] % local));
    const std::pair<int32_t, int32_t> visit{rank_of_pair[i], by_rank_.token_of_pair.data<const int32_t>()[i]};
    if (std::exchange(last, visit) != visit) pairs_of_visit.push_back(0);
    ++pairs_of_visit.back();
  }

  std::vector<int32_t> sizes;
  for (size_t r = 0; r < size_t(ranks); ++r) sizes.insert(sizes.end(), {int32_t(rows_out_[r]), int32_t(pairs_out_[r])});
  const std::vector<int64_t> two(size_t(ranks), 2);
  const std::vector<int32_t> arriving = exchange_list(sizes, two, two, comm);
  for (size_t r = 0; r < size_t(ranks); ++r) {
    rows_in_.push_back(arriving[2 * r]);
    pairs_in_.push_back(arriving[2 * r + 1]);
  }
  const std::vector<int32_t> expert_here = exchange_list(wanted, pairs_out_, pairs_in_, comm);
  std::vector<int32_t> offset{0};
  for (int32_t n : exchange_list(pairs_of_visit, rows_out_, rows_in_, comm)) offset.push_back(offset.back() + n);
  arrived_ = make_plan(tensor_of(expert_here), tensor_of(offset), local);
}

Tensor Journey::out(const Tensor& x) const {
  return comm_.size() == 1 ? x : exchange(permute(x, visits_), rows_out_, rows_in_, comm_);
}

Tensor Journey::out_weight(const Tensor& weight) const {
  if (comm_.size() == 1) return weight;
  const Tensor leaving = by_row(weight, by_rank_);
  const Tensor arrived = exchange(leaving.reshape({leaving.size(), 1}), pairs_out_, pairs_in_, comm_);
  return arrived.reshape({arrived.size()});
}

Tensor Journey::home(const Tensor& y) const {
  return comm_.size() == 1 ? y : combine(exchange(y, rows_in_, rows_out_, comm_), visits_);
}

Tensor Journey::rows_home(const Tensor& rows) const {
  if (comm_.size() == 1) return rows;
  const Tensor of_pairs = by_pair(exchange(by_pair(rows, arrived_), pairs_in_, pairs_out_, comm_), by_rank_);
  return by_row(of_pairs, pairs_);
}

}  // namespace agon
