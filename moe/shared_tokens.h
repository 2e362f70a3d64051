#pragma once
#include <functional>
#include <vector>

#include "distributed/exchange.h"

namespace agon {

/// A pass over the tokens of all ranks, some of every rank's at a time: what goes around when every rank's experts work
/// on all of them. Every call is collective, in the order of the chunks.
class SharedTokens {
 public:
  /// x [T, D]; T differs between ranks. The rows of a chunk, their gradient and copies of both on their way take at
  /// most about chunk_bytes, or one token of each rank. Collective.
  SharedTokens(const Tensor& x, int64_t chunk_bytes, Communicator& comm, const ExchangeOptions& exchange);

  /// The tokens of a chunk: of this rank those from `first` on, of every rank as many as `counts` says.
  struct Chunk {
    int64_t first;
    std::vector<int64_t> counts;
    int64_t all, before, mine;  // of all ranks, of the ranks before this one, of this one
  };
  void each_chunk(const std::function<void(const Chunk&)>& f) const;

  /// The rows of x [T, D] in a chunk, on every rank: [all, D], by rank.
  Tensor gathered(const Chunk& c, const Tensor& x) const;
  /// Numbers [all, e] of this rank's e experts go to the tokens' ranks: into the chunk's rows of `whole` [T, E].
  void numbers_home(const Chunk& c, const Tensor& numbers, const Tensor& whole) const;
  /// The other way round: [T, E] -> [all, e].
  Tensor numbers_out(const Chunk& c, const Tensor& whole) const;
  /// Into the chunk's rows of `whole` [T, D]: the sum of every rank's parts [all, D], in rank order, rounded once.
  void sum_home(const Chunk& c, const Tensor& parts, const Tensor& whole) const;

 private:
  std::vector<int64_t> of_mine(const Chunk& c) const;

  Communicator& comm_;
  ExchangeOptions exchange_;
  size_t own_;
  std::vector<int64_t> tokens_;  // of each rank
  int64_t each_;                 // of a rank in a chunk
};

}  // namespace agon
