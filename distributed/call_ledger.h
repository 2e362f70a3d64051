#pragma once
#include <deque>
#include <string>
#include <vector>

#include "distributed/call.h"

namespace agon {

/// What one rank has called in its group, condensed, for an engine whose calls do not meet on the host: the ranks
/// compare their ledgers where they meet there anyway. Until then an error of theirs shows as a call that does not end.
class CallLedger {
 public:
  explicit CallLedger(int size) : sent_(size_t(size), 0), received_(size_t(size), 0) {}

  /// Returns the call's number in its group, from 1. The call must have no fault.
  int64_t note(const Call& call);
  int64_t calls() const { return calls_; }

  /// Collective over `control`, whose ranks are the group's: where the ledgers do not fit together, the first call that
  /// shows it and what each rank gave; empty when they do.
  std::string compare(Communicator& control) const;

 private:
  struct Entry {
    int64_t number;
    Essence essence;
    std::vector<int64_t> send_rows, receive_rows;  // all_to_all
  };
  std::string history() const;
  static std::string find(const std::vector<std::string>& histories);

  static constexpr size_t kKept = 64;
  int64_t calls_ = 0;
  uint64_t digest_ = 0;                    // of all essences so far
  std::vector<uint64_t> sent_, received_;  // of the rows of all_to_all so far, by rank
  std::deque<Entry> last_;
};

}  // namespace agon
