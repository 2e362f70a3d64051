#pragma once
#include <span>
#include <string>

#include "distributed/communicator.h"

namespace agon {

/// What one rank gives to a collective call: enough to see whether all ranks mean the same.
struct Call {
  Collective operation = Collective::barrier;
  const Tensor* tensor = nullptr;                              // none for barrier and split
  int root = 0;                                                // broadcast
  std::span<const int64_t> send_rows = {}, receive_rows = {};  // all_to_all
  int color = 0, key = 0;                                      // split
};

/// Why these calls, one per rank of a group, do not fit together: naming the operation, the ranks (by the numbers in
/// `ranks`) and what each gave. Empty when they do.
std::string disagreement(std::span<const Call> calls, std::span<const int> ranks);

}  // namespace agon
