#pragma once
#include <numeric>
#include <vector>

#include "core/parallel.h"

namespace agon {

/// The sum of f(begin, end) over pieces of [0, n) whose size is fixed, pieces added in order: the same bits at any
/// thread count.
template <class F>
double ordered_sum(int64_t n, F&& f) {
  constexpr int64_t kPiece = 128;
  std::vector<double> sums(size_t((n + kPiece - 1) / kPiece));
  parallel_ranges(n, kPiece, [&](int64_t begin, int64_t end) { sums[size_t(begin / kPiece)] = f(begin, end); });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace agon
