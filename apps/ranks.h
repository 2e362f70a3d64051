#pragma once
#include "apps/config.h"
#include "distributed/placement.h"

namespace agon {

/// The ranks that train one model, as one of them sees them: all, and its two groups in the layout expert x data
/// (placement.h).
struct Ranks {
  Communicator& all;
  ExpertRanks experts;

  /// Collective. UserError where parallel.expert does not divide the ranks, or the sequences of a micro-batch do not
  /// divide over them in whole routing groups.
  Ranks(const Config& config, Communicator& all);

  int rank() const { return all.rank(); }
  int size() const { return all.size(); }
  bool first() const { return rank() == 0; }  ///< which writes and prints
};

}  // namespace agon
