#include "distributed/placement.h"

#include <doctest/doctest.h>

#include <set>

#include "core/copy.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("placement: every expert has one owner in each group, in contiguous blocks") {
  for (const auto& [ranks, spread, experts] : {std::tuple(1, 1, 8), {4, 4, 8}, {4, 1, 3}, {6, 3, 6}, {8, 2, 64}}) {
    const Placement p = make_placement(ranks, spread, experts);
    CHECK(p.per_rank() * spread == experts);
    for (int group = 0; group < ranks / spread; ++group) {
      std::set<int64_t> held;
      for (int rank = 0; rank < ranks; ++rank) {
        if (p.group(rank) != group) continue;
        for (int64_t e = p.first_expert(rank); e < p.first_expert(rank) + p.per_rank(); ++e) {
          CHECK(held.insert(e).second);
          CHECK(p.owner(e) == p.place(rank));
        }
      }
      CHECK(int64_t(held.size()) == experts);
      CHECK(*held.rbegin() == experts - 1);
    }
  }
}

TEST_CASE("placement: what does not divide is the user's mistake, by its key") {
  CHECK_THROWS_AS(make_placement(4, 3, 6), UserError);
  CHECK_THROWS_AS(make_placement(4, 0, 6), UserError);
  CHECK(message_of([] { make_placement(4, 3, 6); }) ==
        "parallel.expert = 3 does not divide the number of ranks, 4: expected a divisor of it");
  CHECK(message_of([] { make_placement(4, 4, 6); }) ==
        "moe.experts = 6 do not divide over parallel.expert = 4 ranks: expected a multiple of 4");
}

TEST_CASE("placement: the groups meet those the placement names") {
  run_on_threads(6, [](Communicator& all) {
    const Placement p = make_placement(6, 3, 6);
    const ExpertRanks ranks = make_expert_ranks(all, 3);
    CHECK(ranks.group->size() == 3);
    CHECK(ranks.group->rank() == p.place(all.rank()));
    CHECK(ranks.replicas->size() == 2);
    CHECK(ranks.replicas->rank() == p.group(all.rank()));
    const Tensor me = tensor_of<int32_t>({all.rank()});
    const Tensor group = ranks.group->all_gather(me), replicas = ranks.replicas->all_gather(me);
    for (int r : group.data<int32_t>()) CHECK(p.group(r) == p.group(all.rank()));
    for (int r : replicas.data<int32_t>()) CHECK(p.first_expert(r) == p.first_expert(all.rank()));
  });
}
