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

/// What of a call all ranks must give alike.
struct Essence {
  Collective operation = Collective::barrier;
  DType dtype = DType::f32;
  Shape shape = {};  // of all_gather and all_to_all the first extent is each rank's own
  int root = 0;
};
Essence essence_of(const Call& call);

/// What is wrong with the call of one of `size` ranks, whatever the others give; empty when nothing is.
std::string fault(const Call& call, int64_t size);

/// How ranks differ in what they must give alike, in words that name the ranks by `ranks`; empty when they do not.
std::string difference(std::span<const Essence> calls, std::span<const int> ranks);

/// all_to_all: rank `from` sends `sent` rows to rank `to`, which expects `expected`; empty when that is the same.
std::string difference_of_counts(int from, int to, int64_t sent, int64_t expected);

/// Why these calls, one per rank of a group, do not fit together: naming the operation, the ranks (by the numbers in
/// `ranks`) and what each gave. Empty when they do.
std::string disagreement(std::span<const Call> calls, std::span<const int> ranks);

}  // namespace agon
