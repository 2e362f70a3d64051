#pragma once
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/gemm_blocks.h"

// The operands of attention, packed once for all tiles that read them. T: what tensors hold. All products are of
// Accumulator<T>.
namespace agon::cpu {

/// Some rows [n, d] of one head, cut into tiles that start at multiples of kAttentionTile.
template <class A>
class PackedRows {
 public:
  PackedRows(const GemmBlocks<A>& blocks, int64_t width) : gemm_(blocks), width_(width) {}

  /// Memory for the three forms of n rows.
  int64_t size(int64_t n) const { return tiles(n) * kAttentionTile * across(); }

  /// As left operands, tile by tile.
  void as_left(A* to, int64_t n, ConstMatrix rows) const {
    each_tile(n, [&](int64_t i, int64_t m) { gemm_.pack_left(to + i * across(), m, width_, rows.from(i, 0)); });
  }
  /// As right operands [rows of a tile, d].
  void as_right(A* to, int64_t n, ConstMatrix rows) const {
    each_tile(n, [&](int64_t i, int64_t m) { gemm_.pack_right(to + i * across(), width_, m, rows.from(i, 0)); });
  }
  /// As right operands [d, rows of a tile].
  void transposed(A* to, int64_t n, ConstMatrix rows) const {
    each_tile(
        n, [&](int64_t i, int64_t m) { gemm_.pack_right(to + i * across(), m, width_, rows.from(i, 0).transposed()); });
  }
  /// The tile that starts with row i.
  A* tile(A* packed, int64_t i) const { return packed + i * across(); }

 private:
  static int64_t tiles(int64_t n) { return (n + kAttentionTile - 1) / kAttentionTile; }
  /// Numbers a row takes: whole panels.
  int64_t across() const {
    const int64_t panel = gemm_.panel_columns();
    return (width_ + panel - 1) / panel * panel;
  }
  template <class F>
  static void each_tile(int64_t n, F&& f) {
    for (int64_t i = 0; i < n; i += kAttentionTile) f(i, std::min(kAttentionTile, n - i));
  }

  const GemmBlocks<A>& gemm_;
  int64_t width_;
};

}  // namespace agon::cpu
