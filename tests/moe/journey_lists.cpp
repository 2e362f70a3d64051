#include "moe/journey_lists.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "moe/two_sources.h"
#include "tests/moe/support.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kExperts = 12;
constexpr int32_t kNone = TwoSources::kNone;

/// More than a block of tokens on one rank, none on another.
Pairs pairs_of(int rank) {
  const RandomPairs chosen = random_pairs(rank == 1 ? 0 : rank == 0 ? 1100 : 30, kExperts, 5 + uint64_t(rank), 3);
  Pairs pairs;
  pairs.expert = chosen.expert;
  pairs.token_offsets = chosen.token_offsets;
  return pairs;
}

std::vector<int32_t> values(const Tensor& t) {
  const auto v = t.data<const int32_t>();
  return {v.begin(), v.end()};
}

/// The lists as they must be where everything fits, found one rank after the other.
void check_lists(const JourneyLists& lists, int ranks, int rank, bool own_too) {
  const int64_t each = kExperts / ranks;
  const Pairs mine = pairs_of(rank);
  const auto offset = values(mine.token_offsets), expert = values(mine.expert);
  const auto T = int32_t(offset.size()) - 1;
  const auto stays = [&](int32_t r) { return r == rank && !own_too; };

  // What leaves: by rank, then token, then pair.
  std::vector<int32_t> leaving_rows, leaving_pairs, home(expert.size(), kNone), own;
  std::map<std::pair<int32_t, int32_t>, int32_t> row_of;  // (token, rank)
  for (int32_t r = 0; r < ranks; ++r)
    for (int32_t t = 0; t < T; ++t)
      for (int32_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i) {
        if (expert[size_t(i)] / each != r) continue;
        if (stays(r)) {
          home[size_t(i)] = ~int32_t(own.size());
          own.push_back(i);
          continue;
        }
        home[size_t(i)] = int32_t(leaving_pairs.size());
        leaving_pairs.push_back(i);
        if (row_of.emplace(std::pair(t, r), int32_t(leaving_rows.size())).second) leaving_rows.push_back(t);
      }
  check(values(lists.leaving_rows) == leaving_rows, "rows that leave");
  check(values(lists.leaving_pairs) == leaving_pairs, "pairs that leave");
  check(values(lists.home_pairs) == home, "where pairs come home from");

  std::vector<int32_t> visits, visit_offsets{0};
  for (int32_t t = 0; t < T; ++t) {
    std::set<int32_t> of_token;
    for (int32_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
      of_token.insert(int32_t(expert[size_t(i)] / each));
    for (int32_t r : of_token) visits.push_back(stays(r) ? ~t : row_of.at({t, r}));
    visit_offsets.push_back(int32_t(visits.size()));
  }
  auto found = values(lists.visits);
  found.resize(visits.size());
  check(found == visits, "the rows a token's sum is made of");
  check(values(lists.visit_offsets) == visit_offsets, "where each token's begin");

  // What arrives: of each rank, in the order it leaves there.
  std::vector<int32_t> here, token_offsets, arrived;
  if (!own_too) {
    token_offsets.push_back(0);
    for (int32_t t = 0; t < T; ++t) {
      for (int32_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
        if (expert[size_t(i)] / each == rank) here.push_back(int32_t(expert[size_t(i)] % each)), arrived.push_back(~i);
      token_offsets.push_back(int32_t(here.size()));
    }
  } else {
    token_offsets.push_back(0);
  }
  int32_t slot = 0;
  for (int r = 0; r < ranks; ++r) {
    int64_t rows = 0, count = 0;
    if (!stays(r)) {
      const Pairs theirs = pairs_of(r);
      const auto at = values(theirs.token_offsets), e = values(theirs.expert);
      for (size_t t = 0; t + 1 < at.size(); ++t) {
        const size_t before = here.size();
        for (auto i = size_t(at[t]); i < size_t(at[t + 1]); ++i)
          if (e[i] / each == rank) here.push_back(int32_t(e[i] % each)), arrived.push_back(slot++), ++count;
        if (here.size() > before) token_offsets.push_back(int32_t(here.size())), ++rows;
      }
    }
    check(lists.rows_in[size_t(r)] == rows && lists.pairs_in[size_t(r)] == count, "what comes from rank ", r);
  }
  check(values(lists.arrived_pairs) == arrived, "where arrived pairs come from");
  const Plan plan = make_plan(tensor_of(here), tensor_of(token_offsets), each);
  check(identical(lists.plan.pair_of_row, plan.pair_of_row) && identical(lists.plan.offsets, plan.offsets) &&
            identical(lists.plan.token_of_pair, plan.token_of_pair),
        "the plan of what arrived");
  const auto returning = values(lists.returning_pairs);
  for (size_t s = 0; s < size_t(slot); ++s)
    check(arrived[size_t(returning[s])] == int32_t(s), "the arrived pair of slot ", s);
  check(lists.dropped == 0, "dropped");
}

}  // namespace

TEST_CASE("journey_lists: rows and pairs by rank, then token, of 1 to 4 ranks, the own among them or not") {
  for (const int ranks : {1, 2, 3, 4})
    for (const bool own_too : {false, true})
      run_on_threads(ranks, [&](Communicator& comm) {
        const JourneyLists lists = make_journey_lists(pairs_of(comm.rank()), kExperts, comm, own_too, {});
        check_lists(lists, ranks, comm.rank(), own_too);
      });
}

TEST_CASE("journey_lists: experts that do not exist are an error that names them") {
  const auto self = make_self_communicator();
  Pairs pairs;
  pairs.expert = tensor_of<int32_t>({0, 4});
  pairs.token_offsets = tensor_of<int32_t>({0, 2});
  CHECK_THROWS_WITH_AS(make_journey_lists(pairs, 4, *self, true, {}),
                       doctest::Contains("pair 1 names expert 4, there are 4"), Error);
}

TEST_CASE("journey_lists: bounds are what even routing sends, times the bound, and no more than all") {
  const ExchangeOptions once{.bounded = true, .bound = 1}, twice{.bounded = true, .bound = 2};
  // One of 8 experts on 4 ranks: a quarter of the tokens. Two: 1 - 6/8 * 5/7 of them have a row, 2/4 a pair.
  CHECK(bounds_of(once, 80, 1, 8, 4).rows == 20);
  CHECK(bounds_of(once, 80, 1, 8, 4).pairs == 20);
  CHECK(bounds_of(once, 56, 2, 8, 4).rows == 26);
  CHECK(bounds_of(once, 56, 2, 8, 4).pairs == 28);
  CHECK(bounds_of(twice, 56, 2, 8, 4).rows == 52);
  CHECK(bounds_of(twice, 56, 2, 8, 4).pairs == 56);
  CHECK(bounds_of(once, 80, 1.5, 8, 4).pairs == 30);
  CHECK(bounds_of(once, 56, 1.5, 8, 4).rows == 20);  // between 14 and 26
  // All experts: all rows, whatever the bound.
  CHECK(bounds_of(once, 10, 8, 8, 4).rows == 10);
  CHECK(bounds_of(twice, 10, 8, 8, 4).rows == 10);
  CHECK(bounds_of(twice, 10, 8, 8, 4).pairs == 20);
  CHECK(bounds_of(once, 7, 1, 8, 4).rows == 2);  // up
  CHECK(bounds_of(twice, 0, 2, 8, 4).rows == 0);
  CHECK(bounds_of(twice, 6, 2, 8, 1).rows == 6);
}
