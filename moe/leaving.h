#pragma once
#include <span>
#include <vector>

#include "core/tensor.h"

namespace agon {

/// Rows and pairs that go from one rank to another where their number is fixed.
struct ExchangeBounds {
  int64_t rows, pairs;
};

/// The pairs of a rank's tokens by the rank of their experts: by rank, then token, then pair. A token has a row for
/// each rank with experts of its. A counting sort in two passes over blocks of tokens.
class Leaving {
 public:
  /// Counts. expert [N], token_offsets [T+1], on the CPU. `own`: the rank whose rows and pairs stay; -1: none. Throws
  /// Error where an expert is not in [0, experts).
  Leaving(std::span<const int32_t> expert, std::span<const int32_t> token_offsets, int64_t experts, int ranks, int own);

  int64_t tokens() const { return int64_t(token_offset_.size()) - 1; }
  int64_t rows(int rank) const { return totals_[size_t(rank)].rows; }
  int64_t pairs(int rank) const { return totals_[size_t(rank)].pairs; }

  /// Lists to be filled; numbers are those of TwoSources.
  struct Lists {
    std::span<int32_t> rows;    // token of each row that leaves, by rank from first_row on
    std::span<int32_t> pairs;   // pair in each slot that leaves, by rank from first_pair on
    std::span<int32_t> wanted;  // of the same slots: the pair's expert, counted on its rank; ~ that for a row's first
    std::span<int32_t> stay, experts_of_stay;  // ~pair of each pair that stays, and its expert
    std::span<int32_t> stay_offsets;           // [T+1]: where each token's are
    std::span<int32_t> visits, visit_offsets;  // each token's rows by rank, ~token for one that stays; [T+1]
    std::span<int32_t> homes;                  // of each pair: its slot, or ~ its place among those that stay
    std::vector<int32_t> first_row, first_pair;
    ExchangeBounds bounds;  // per rank: what is beyond is not listed, and named TwoSources::kNone where it is asked for
  };
  /// Once. Returns the pairs that were beyond the bounds: to each rank those of the last tokens, with all of a row.
  int64_t fill(const Lists& to);

 private:
  /// Rows and pairs for one rank: how many, then where the next ones go.
  struct Place {
    int32_t rows = 0, pairs = 0;
  };
  struct Visit {
    int64_t token = -1;
    int32_t pairs = 0, slot = 0;  // slot: of the next pair
    bool begun = false;
  };

  size_t blocks() const;
  void each_block(auto&& f) const;
  void count();
  int64_t fill_block(const Lists& to, Place* next, int64_t begin, int64_t end) const;

  std::span<const int32_t> expert_, token_offset_;
  std::vector<int32_t> owner_, number_;  // of each expert: its rank, and its number there
  const size_t ranks_;
  const int own_;
  const size_t stride_;
  std::vector<Place> next_;  // by block, then rank
  std::vector<Place> totals_;
};

}  // namespace agon
