#pragma once
#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/tensor.h"
#include "ops/cpu/gemm_blocks.h"

// How products of groups of rows are cut into one flat list of tasks. No cut changes a bit.
namespace agon::cpu {

/// Rows [begin, end) of one group.
struct GroupBlock {
  int64_t group, begin, end;
  int64_t rows() const { return end - begin; }
};

/// The rows of all groups, offsets [groups + 1] i32. High blocks pack the groups' weights less often, low ones leave
/// enough for every thread; a block's rows of `width` numbers should stay in the second-level cache.
inline std::vector<GroupBlock> group_blocks(const Tensor& offsets, int64_t width) {
  const auto offset = offsets.data<const int32_t>();
  const int64_t fair = std::clamp<int64_t>(offset.back() / (12 * threads()), 64, 256);
  const int64_t most = std::clamp<int64_t>((int64_t(192) << 10) / std::max<int64_t>(width, 1), 64, fair);
  std::vector<GroupBlock> blocks;
  for (size_t e = 0; e + 1 < offset.size(); ++e) {
    const Pieces pieces = Pieces::of(offset[e + 1] - offset[e], most);
    for (int64_t i = 0; i < pieces.count; ++i)
      blocks.push_back({int64_t(e), offset[e] + pieces.begin(i), offset[e] + pieces.begin(i + 1)});
  }
  return blocks;
}

/// A piece of one group's matrix.
struct GroupPiece {
  int64_t group, row, rows, column, columns;
};

/// Calls f(piece) over the pool for the matrices [rows, columns] of all groups, cut into enough pieces for every
/// thread, along the longer side: the operand of the shorter one is packed for each piece.
template <class F>
void each_group_piece(int64_t groups, int64_t rows, int64_t columns, F&& f) {
  constexpr int64_t kUnit = 32;
  const int64_t side = std::max(rows, columns), units = (side + kUnit - 1) / kUnit;
  const int64_t wanted = std::clamp<int64_t>((8 * threads() + groups - 1) / groups, 1, (units + 3) / 4);
  const Pieces pieces = Pieces::of(units, (units + wanted - 1) / wanted);
  parallel_tasks(groups * pieces.count, [&](int64_t task) {
    const int64_t i = task % pieces.count, first = pieces.begin(i) * kUnit;
    const int64_t n = std::min(side, pieces.begin(i + 1) * kUnit) - first;
    f(rows > columns ? GroupPiece{task / pieces.count, first, n, 0, columns}
                     : GroupPiece{task / pieces.count, 0, rows, first, n});
  });
}

}  // namespace agon::cpu
