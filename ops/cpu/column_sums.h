#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/parallel.h"

namespace agon::cpu {

/// out[j] = [out[j] +] factor * the sum over n < rows of term(n, j), for j < width: pieces of 256 rows in order, then
/// the pieces in order. `add_row(n, sums)` adds row n to sums[0 .. width).
template <class A, class Out, class F>
void column_sums(Out* out, bool add, int64_t rows, int64_t width, F&& add_row, A factor = 1) {
  constexpr int64_t kPiece = 256;
  const int64_t pieces = (rows + kPiece - 1) / kPiece;
  std::vector<A> partial(size_t(pieces * width));
  parallel_ranges(rows, kPiece, [&](int64_t begin, int64_t end) {
    A* const sums = partial.data() + begin / kPiece * width;
    for (int64_t n = begin; n < end; ++n) add_row(n, sums);
  });
  for (int64_t piece = 1; piece < pieces; ++piece)
    for (int64_t j = 0; j < width; ++j) partial[size_t(j)] += partial[size_t(piece * width + j)];
  for (int64_t j = 0; j < width; ++j) {
    const A total = pieces ? factor * partial[size_t(j)] : A(0);
    out[j] = Out(add ? A(out[j]) + total : total);
  }
}

}  // namespace agon::cpu
