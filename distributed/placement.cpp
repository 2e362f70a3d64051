#include "distributed/placement.h"

namespace agon {

namespace {

void require_groups(int ranks, int spread) {
  require(spread >= 1 && ranks >= 1 && ranks % spread == 0, "parallel.expert = ", spread,
          " does not divide the number of ranks, ", ranks, ": expected a divisor of it");
}

}  // namespace

Placement make_placement(int ranks, int spread, int64_t experts) {
  require_groups(ranks, spread);
  require(experts >= 1 && experts % spread == 0, "moe.experts = ", experts,
          " do not divide over parallel.expert = ", spread, " ranks: expected a multiple of ", spread);
  return {ranks, spread, experts};
}

ExpertRanks make_expert_ranks(Communicator& all, int spread) {
  require_groups(all.size(), spread);
  const Placement p{all.size(), spread, spread};
  ExpertRanks ranks;
  ranks.group = all.split(p.group(all.rank()), all.rank());
  ranks.replicas = all.split(p.place(all.rank()), all.rank());
  return ranks;
}

}  // namespace agon
