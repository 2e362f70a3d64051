#pragma once
#include "apps/config.h"
#include "distributed/placement.h"

namespace agon {

/// What one rank moved to others and how long that took, seconds.
struct Communication {
  double bytes = 0;    // sent
  double seconds = 0;  // in collective calls
  double waited = 0;   // of them, for other ranks to come

  Communication operator-(const Communication& o) const {
    return {bytes - o.bytes, seconds - o.seconds, waited - o.waited};
  }
};

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
  int on_this_host() const;
  /// Of this rank so far, in all its groups.
  Communication communication() const;
};

}  // namespace agon
