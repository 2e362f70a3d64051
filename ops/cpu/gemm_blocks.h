#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>

#include "core/storage.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/gemm_kernels.h"

// What products are made of, for gemm.cpp and for ops that fuse something with theirs.
namespace agon::cpu {

/// A total cut into as few pieces of at most `most` as will do, all but equal.
struct Pieces {
  int64_t count, total;
  static Pieces of(int64_t total, int64_t most) { return {(total + most - 1) / most, total}; }
  int64_t begin(int64_t i) const { return total / count * i + std::min(i, total % count); }
  int64_t size(int64_t i) const { return begin(i + 1) - begin(i); }
};

/// What a thread's memory is for; each use has a block of its own.
enum class Scratch { left, right, wide, shared, rows, before, hidden, slopes, sums, heads, count };

/// Memory of n elements, kept by each thread between calls; no result depends on what is in it.
template <class T>
T* scratch(Scratch use, int64_t n) {
  struct Block {
    std::shared_ptr<std::byte> bytes;
    size_t size = 0;
  };
  thread_local Block blocks[size_t(Scratch::count)];
  Block& block = blocks[size_t(use)];
  if (const size_t wanted = size_t(n) * sizeof(T); block.size < wanted) {
    block = {};
    block = {allocate_block({}, wanted), wanted};
  }
  return reinterpret_cast<T*>(block.bytes.get());
}

/// Products with operands packed as P (gemm_kernels.h): A as panels of rows, each [k, rows of the panel], B as panels
/// of columns, each [k, one or two registers].
template <class P>
class GemmBlocks {
 public:
  using Number = typename Packed<P>::Number;

  explicit GemmBlocks(const GemmInstructions& instructions) : set_(instructions) {}

  /// Depth of a product over which operands stay packed; the chains go on through C from one to the next. Even, for
  /// pairs.
  static constexpr int64_t kDepth = 768;
  static Pieces depths(int64_t k) { return {std::max<int64_t>(1, (k + kDepth - 1) / kDepth), (k + 1) / 2}; }
  static int64_t depth_begin(const Pieces& depths, int64_t i) { return 2 * depths.begin(i); }
  static int64_t depth_size(const Pieces& depths, int64_t i, int64_t k) {
    return std::min(k, 2 * depths.begin(i + 1)) - 2 * depths.begin(i);
  }

  /// Elements of k numbers.
  static int64_t packed(int64_t k) { return (k + Packed<P>::kNumbers - 1) / Packed<P>::kNumbers; }
  int64_t panel_columns() const { return 2 * kernel().numbers; }
  int64_t left_size(int64_t m, int64_t k) const { return m * packed(k); }
  int64_t right_size(int64_t n, int64_t k) const {
    return (n + panel_columns() - 1) / panel_columns() * panel_columns() * packed(k);
  }
  Pieces row_panels(int64_t m) const { return Pieces::of(m, kernel().rows); }

  /// Rows [0, m) of a [m, k].
  void pack_left(P* to, int64_t m, int64_t k, ConstMatrix a) const { pack_left_part(to, m, k, 0, k, a); }
  /// Columns [l, l + depth) of the same, from a [m, depth]; l must be even.
  void pack_left_part(P* to, int64_t m, int64_t k, int64_t l, int64_t depth, ConstMatrix a) const {
    const Pieces rows = row_panels(m);
    const auto part = [&](int64_t p, int64_t from, int64_t n) {
      const int64_t i = rows.begin(p), lanes = rows.size(p);
      pack(to + i * packed(k) + packed(l + from) * lanes, lanes, lanes, n, a.from(i, from), a.row_stride,
           a.column_stride);
    };
    // Where lanes are adjacent, panels share cache lines: a few steps of k of several panels at a time.
    const int64_t panels = a.row_stride == 1 ? kPanelsAtOnce : 1, steps = a.row_stride == 1 ? kStepsAtOnce : depth;
    for (int64_t first = 0; first < rows.count; first += panels)
      for (int64_t from = 0; from < depth; from += steps)
        for (int64_t p = first; p < std::min(first + panels, rows.count); ++p)
          part(p, from, std::min(steps, depth - from));
  }
  /// The panel of columns [0, columns) of b [k, columns], at most panel_columns().
  void pack_panel(P* to, int64_t columns, int64_t k, ConstMatrix b) const {
    pack(to, panel_width(columns), columns, k, b, b.column_stride, b.row_stride);
  }
  /// All panels of b [k, n]: right_size(n, k) elements.
  void pack_right(P* to, int64_t n, int64_t k, ConstMatrix b) const {
    for (int64_t j = 0; j < n; j += panel_columns())
      pack_panel(to + j * packed(k), std::min(panel_columns(), n - j), k, b.from(0, j));
  }

  /// C [m, n] = [C +] left times right, both packed; `ahead` is fetched meanwhile.
  void multiply_packed(const P* left, const P* right, int64_t m, int64_t n, int64_t k, Number* c, int64_t c_stride,
                       bool add, const GemmAhead& ahead = {}) const {
    for (int64_t j = 0; j < n; j += panel_columns()) {
      const int64_t columns = std::min(panel_columns(), n - j);
      multiply_panel(left, right + j * packed(k), panel_width(columns), m, columns, k, c + j, c_stride, add,
                     j == 0 ? ahead : GemmAhead{});
    }
  }

  /// C [m, n] = [C +] a times right, with a [m, k] as it lies: a panel of rows at a time is packed, and the next one
  /// fetched meanwhile. For a `right` that stays in the second-level cache.
  void multiply_left(ConstMatrix a, const P* right, int64_t m, int64_t n, int64_t k, Number* c, int64_t c_stride,
                     bool add) const {
    const Pieces rows = row_panels(m);
    P* const panel = scratch<P>(Scratch::left, kernel().rows * packed(k));
    for (int64_t p = 0; p < rows.count; ++p) {
      const int64_t i = rows.begin(p), height = rows.size(p);
      pack_left(panel, height, k, a.from(i, 0));
      const bool last = p + 1 == rows.count;
      multiply_packed(panel, right, height, n, k, c + i * c_stride, c_stride, add,
                      last ? GemmAhead{} : lines_of(a.from(i + height, 0).transposed(), rows.size(p + 1), k));
    }
  }

  /// C [m, n] = [C +] left times b, with b [k, n] as it lies: a panel at a time is packed, and the next one fetched
  /// meanwhile.
  void multiply(const P* left, int64_t m, int64_t n, int64_t k, ConstMatrix b, Number* c, int64_t c_stride,
                bool add) const {
    // A panel that is used once and lies as the tile wants it is left where it is.
    const bool direct =
        std::is_same_v<P, Number> && m <= kernel().rows && b.column_stride == 1 && b.dtype == dtype_of<Number>;
    if (!direct && m <= std::min(kFewRows, kernel().rows)) return multiply_few(left, m, n, k, b, c, c_stride, add);
    P* const panel = scratch<P>(Scratch::right, panel_columns() * packed(k));
    for (int64_t j = 0; j < n; j += panel_columns()) {
      const int64_t columns = std::min(panel_columns(), n - j), next = j + columns;
      const ConstMatrix from = b.from(0, j);
      if (direct && columns == panel_width(columns)) {
        multiply_panel(left, static_cast<const P*>(from.data), b.row_stride, m, columns, k, c + j, c_stride, add, {});
        continue;
      }
      pack_panel(panel, columns, k, from);
      multiply_panel(left, panel, panel_width(columns), m, columns, k, c + j, c_stride, add,
                     lines_of(b.from(0, next), std::min(panel_columns(), n - next), k));
    }
  }

 private:
  static constexpr int64_t kFewRows = 8, kFewDepth = 128;
  static constexpr int64_t kPanelsAtOnce = 8, kStepsAtOnce = 16;

  const GemmKernel<P>& kernel() const {
    if constexpr (std::is_same_v<P, float>)
      return set_.f32;
    else if constexpr (std::is_same_v<P, double>)
      return set_.f64;
    else
      return set_.pairs->kernel;
  }

  int64_t panel_width(int64_t columns) const { return columns > kernel().numbers ? panel_columns() : kernel().numbers; }

  void pack(P* to, int64_t width, int64_t lanes, int64_t k, ConstMatrix from, int64_t lane_stride,
            int64_t k_stride) const {
    if constexpr (std::is_same_v<P, double>)
      set_.pack_f64(to, width, lanes, k, static_cast<const double*>(from.data), lane_stride, k_stride);
    else if constexpr (std::is_same_v<P, Bf16Pair>)
      set_.pairs->pack(to, width, lanes, k, static_cast<const uint16_t*>(from.data), lane_stride, k_stride);
    else if (from.dtype == DType::bf16)
      set_.pack_bf16(to, width, lanes, k, static_cast<const uint16_t*>(from.data), lane_stride, k_stride);
    else
      set_.pack_f32(to, width, lanes, k, static_cast<const float*>(from.data), lane_stride, k_stride);
  }

  /// `multiply` for rows of one panel, few of them: each number of b is used hardly more often than it is fetched, so
  /// it is packed in pieces short enough to be multiplied out of the first-level cache.
  void multiply_few(const P* left, int64_t m, int64_t n, int64_t k, ConstMatrix b, Number* c, int64_t c_stride,
                    bool add) const {
    P* const panel = scratch<P>(Scratch::right, panel_columns() * packed(kFewDepth));
    for (int64_t j = 0; j < n; j += panel_columns()) {
      const int64_t columns = std::min(panel_columns(), n - j);
      for (int64_t l = 0; l < std::max<int64_t>(k, 1); l += kFewDepth) {
        const int64_t depth = std::min(kFewDepth, k - l), next = l + depth;
        pack_panel(panel, columns, depth, b.from(l, j));
        const GemmAhead ahead = next < k ? lines_of(b.from(next, j), columns, std::min(kFewDepth, k - next))
                                         : lines_of(b.from(0, j + columns), std::min(panel_columns(), n - j - columns),
                                                    std::min(kFewDepth, k));
        multiply_panel(left + packed(l) * m, panel, panel_width(columns), m, columns, depth, c + j, c_stride,
                       add || l > 0, ahead);
      }
    }
  }

  void multiply_panel(const P* left, const P* panel, int64_t b_stride, int64_t m, int64_t columns, int64_t k, Number* c,
                      int64_t c_stride, bool add, const GemmAhead& ahead) const {
    const Pieces rows = row_panels(m);
    for (int64_t p = 0; p < rows.count; ++p) {
      GemmAhead share = ahead;
      share.begin = ahead.end * p / rows.count;
      share.end = ahead.end * (p + 1) / rows.count;
      kernel().tile({rows.size(p), columns > kernel().numbers ? 2 : 1, columns, packed(k),
                     left + rows.begin(p) * packed(k), panel, b_stride, c + rows.begin(p) * c_stride, c_stride, add,
                     share});
    }
  }

  /// All cache lines of b [k, columns].
  static GemmAhead lines_of(ConstMatrix b, int64_t columns, int64_t k) {
    if (columns <= 0) return {};
    const bool along_k = b.row_stride == 1;
    const int64_t run = (along_k ? k : columns) * size_of(b.dtype), lines = (run + 63) / 64,
                  stride = (along_k ? b.column_stride : b.row_stride) * size_of(b.dtype);
    return {static_cast<const char*>(b.data), lines, stride, 0, lines * (along_k ? columns : k)};
  }

  const GemmInstructions& set_;
};

/// Calls f with the GemmBlocks for operands of these dtypes.
template <class F>
void with_gemm_blocks(const GemmInstructions& set, DType a, DType b, F&& f) {
  if (a == DType::f64) return f(GemmBlocks<double>(set));
  if (set.pairs && a == DType::bf16 && b == DType::bf16) return f(GemmBlocks<Bf16Pair>(set));
  f(GemmBlocks<float>(set));
}

/// The set products use: the widest there is.
inline const GemmInstructions& widest_gemm_instructions() {
  static const GemmInstructions& widest = *gemm_instructions(0);
  return widest;
}

}  // namespace agon::cpu
