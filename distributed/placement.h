#pragma once
#include <cstdint>
#include <memory>

#include "distributed/communicator.h"

namespace agon {

/// Which rank owns which expert. The ranks form groups of `spread` neighbours, each of which holds all experts once, in
/// blocks of E / spread; ranks at the same place of different groups hold the same experts and are each other's
/// replicas. With R ranks: R = spread is pure expert parallelism, spread = 1 pure data parallelism.
struct Placement {
  int ranks;        // R
  int spread;       // ranks per group, the config's parallel.expert
  int64_t experts;  // E of one layer

  int group(int rank) const { return rank / spread; }
  int place(int rank) const {
    return rank % spread;
  }  ///< in its group: the rank in the communicator of make_expert_ranks
  int64_t per_rank() const { return experts / spread; }
  int64_t first_expert(int rank) const { return place(rank) * per_rank(); }
  int owner(int64_t expert) const { return int(expert / per_rank()); }  ///< the place that owns it, in every group
};

/// Throws UserError when `spread` does not divide the ranks or the experts do not divide over it.
Placement make_placement(int ranks, int spread, int64_t experts);

/// The two groups a rank belongs to. Collective over `all`, whose ranks are the placement's.
struct ExpertRanks {
  std::unique_ptr<Communicator> group;  // spread ranks that hold all experts together: where tokens are exchanged
  std::unique_ptr<Communicator>
      replicas;  // ranks / spread ranks that hold the same experts: whose gradients are summed
};
ExpertRanks make_expert_ranks(Communicator& all, int spread);

}  // namespace agon
