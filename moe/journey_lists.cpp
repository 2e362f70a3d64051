#include "moe/journey_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/copy.h"
#include "moe/two_sources.h"

namespace agon {

namespace {

constexpr int32_t kNone = TwoSources::kNone;

int64_t sum_of(const std::vector<int64_t>& n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

Tensor list(int64_t n) { return Tensor({n}, DType::i32); }

/// A list of this rank's, exchanged as tensors of the model's are.
Tensor exchange_list(const Tensor& values, const std::vector<int64_t>& out, const std::vector<int64_t>& in,
                     Communicator& comm, Device device) {
  const Tensor leaving = on_device(values, device).reshape({values.size(), 1});
  return on_host(exchange(leaving, out, in, comm));
}

/// How many pairs come from each rank.
std::vector<int64_t> exchange_counts(const std::vector<int64_t>& out, Communicator& comm, int own, Device device) {
  std::vector<int64_t> each(out.size(), 1);
  if (own >= 0) each[size_t(own)] = 0;
  std::vector<int32_t> leaving;
  for (size_t r = 0; r < out.size(); ++r)
    if (each[r]) leaving.push_back(int32_t(out[r]));
  const Tensor arrived = exchange_list(tensor_of(leaving), each, each, comm, device);
  std::vector<int64_t> in(out.size(), 0);
  size_t n = 0;
  for (size_t r = 0; r < out.size(); ++r)
    if (each[r]) in[r] = arrived.data<const int32_t>()[n++];
  return in;
}

/// Where each of `counts` begins when they lie one after the other.
std::vector<int32_t> begins(const std::vector<int64_t>& counts) {
  std::vector<int32_t> first;
  int64_t n = 0;
  for (int64_t c : counts) {
    first.push_back(int32_t(n));
    n += c;
  }
  check(n <= std::numeric_limits<int32_t>::max(), n, " rows or pairs leave a rank, more than can be numbered");
  return first;
}

}  // namespace

ExchangeBounds bounds_of(const ExchangeOptions& options, int64_t tokens, double experts_per_token, int64_t experts,
                         int ranks) {
  const int64_t each = experts / ranks;
  // The chance that none of k different experts is the rank's; between whole k on a straight line.
  const auto missed = [&](int64_t k) {
    double chance = 1;
    for (int64_t i = 0; i < k; ++i)
      chance *= std::max(0.0, double(experts - each - i)) / double(std::max<int64_t>(1, experts - i));
    return chance;
  };
  const double k = std::min(experts_per_token, double(experts)), whole = std::floor(k), rest = k - whole;
  const double visits = 1 - (1 - rest) * missed(int64_t(whole)) - (rest > 0 ? rest * missed(int64_t(whole) + 1) : 0);
  const auto limited = [&](double even, int64_t all) {
    return std::min(all, int64_t(std::ceil(options.bound * even * double(tokens))));
  };
  return {limited(visits, tokens), limited(k / ranks, tokens * each)};
}

JourneyLists make_journey_lists(const Pairs& pairs, int64_t experts, Communicator& comm, bool own_too,
                                const std::optional<ExchangeBounds>& bounds) {
  const int ranks = comm.size(), own = own_too ? -1 : comm.rank();
  const Device device = pairs.expert.device();
  const Tensor expert = on_host(pairs.expert), token_offsets = on_host(pairs.token_offsets);
  const auto offset = token_offsets.data<const int32_t>();
  Leaving leaving(expert.data<const int32_t>(), offset, experts, ranks, own);
  const int64_t T = leaving.tokens(), N = expert.size();

  JourneyLists lists;
  lists.own_rows = own_too ? 0 : T;
  for (int r = 0; r < ranks; ++r) {
    lists.rows_out.push_back(r == own ? 0 : bounds ? bounds->rows : leaving.rows(r));
    lists.pairs_out.push_back(r == own ? 0 : bounds ? bounds->pairs : leaving.pairs(r));
  }
  lists.pairs_in = bounds ? lists.pairs_out : exchange_counts(lists.pairs_out, comm, own, device);
  const int64_t stay = own < 0 ? 0 : leaving.pairs(own), came = sum_of(lists.pairs_in);
  const int64_t P = came + (bounds && own >= 0 ? N : stay);

  const Tensor leaving_rows = list(sum_of(lists.rows_out)), visits = list(N), visit_offsets = list(T + 1),
               leaving_pairs = list(sum_of(lists.pairs_out)), wanted = list(sum_of(lists.pairs_out)),
               home_pairs = list(N), arrived_pairs = list(P), expert_here = list(P);
  for (const Tensor* t : {&leaving_rows, &leaving_pairs, &wanted, &arrived_pairs})
    if (bounds) std::ranges::fill(t->data<int32_t>(), kNone);
  for (const Tensor* t : {&visits, &home_pairs})
    std::ranges::fill(t->data<int32_t>().subspan(size_t(offset[T])), kNone);
  std::vector<int32_t> stay_offsets(size_t(T) + 1);
  constexpr int64_t kAll = std::numeric_limits<int32_t>::max();
  lists.dropped = leaving.fill({.rows = leaving_rows.data<int32_t>(),
                                .pairs = leaving_pairs.data<int32_t>(),
                                .wanted = wanted.data<int32_t>(),
                                .stay = arrived_pairs.data<int32_t>(),
                                .experts_of_stay = expert_here.data<int32_t>(),
                                .stay_offsets = stay_offsets,
                                .visits = visits.data<int32_t>(),
                                .visit_offsets = visit_offsets.data<int32_t>(),
                                .homes = home_pairs.data<int32_t>(),
                                .first_row = begins(lists.rows_out),
                                .first_pair = begins(lists.pairs_out),
                                .bounds = bounds.value_or(ExchangeBounds{kAll, kAll})});

  // Of what comes: the expert of each pair, and the rows they belong to. A slot that is not in use holds none.
  const Tensor arriving = exchange_list(wanted, lists.pairs_out, lists.pairs_in, comm, device),
               returning_pairs = list(came);
  const auto coming = arriving.data<const int32_t>();
  const auto returning = returning_pairs.data<int32_t>(), origin = arrived_pairs.data<int32_t>(),
             number = expert_here.data<int32_t>();
  std::vector<int32_t> first_pair = own < 0 ? std::vector<int32_t>() : std::move(stay_offsets);  // of each row
  if (own >= 0) first_pair.pop_back();
  auto pair = int32_t(stay), slot = int32_t(0);
  for (int r = 0; r < ranks; ++r) {
    const size_t begin = first_pair.size();
    for (const int32_t end = slot + int32_t(lists.pairs_in[size_t(r)]); slot < end; ++slot) {
      const int32_t what = coming[size_t(slot)];
      returning[size_t(slot)] = what == kNone ? kNone : pair;
      if (what == kNone) continue;
      if (what < 0) first_pair.push_back(pair);
      number[size_t(pair)] = what < 0 ? ~what : what;
      origin[size_t(pair++)] = slot;
    }
    if (bounds) first_pair.resize(begin + size_t(lists.rows_out[size_t(r)]), pair);
    lists.rows_in.push_back(int64_t(first_pair.size() - begin));
  }
  first_pair.push_back(pair);

  lists.plan = make_plan(on_device(expert_here, device), on_device(tensor_of(first_pair), device), experts / ranks);
  lists.leaving_rows = on_device(leaving_rows, device);
  lists.visits = on_device(visits, device);
  lists.visit_offsets = on_device(visit_offsets, device);
  lists.leaving_pairs = on_device(leaving_pairs, device);
  lists.home_pairs = on_device(home_pairs, device);
  lists.arrived_pairs = on_device(arrived_pairs, device);
  lists.returning_pairs = on_device(returning_pairs, device);
  return lists;
}

Tensor rows_of(const Tensor& pairs, const Plan& plan) {
  const Tensor pair = on_host(pairs), rows = on_host(plan.row_of_pair), found = list(pair.size());
  const auto row = rows.data<const int32_t>();
  std::ranges::transform(pair.data<const int32_t>(), found.data<int32_t>().begin(),
                         [&](int32_t i) { return i == kNone ? kNone : row[size_t(i)]; });
  return on_device(found, pairs.device());
}

Tensor sources_by_row(const Plan& rows, const Tensor& source, const Plan& other) {
  const Tensor pairs = on_host(rows.pair_of_row), sources = on_host(source), others = on_host(other.row_of_pair),
               found = list(pairs.size());
  const auto from = sources.data<const int32_t>(), row = others.data<const int32_t>();
  std::ranges::transform(pairs.data<const int32_t>(), found.data<int32_t>().begin(), [&](int32_t i) {
    const int32_t n = i < 0 ? kNone : from[size_t(i)];
    return n >= 0 || n == kNone ? n : ~row[size_t(~n)];
  });
  return on_device(found, source.device());
}

}  // namespace agon
