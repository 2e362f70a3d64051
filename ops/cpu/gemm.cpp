#include "ops/cpu/gemm.h"

#include "core/parallel.h"
#include "ops/cpu/gemm_blocks.h"

namespace agon::cpu {

namespace {

constexpr int64_t kCached = int64_t(512) << 10;  // bytes that stay in the second-level cache beside all else
constexpr int64_t kRows = 256;  // of A that stay packed, about what the second-level cache holds at kDepth

void check_dtypes(ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  const bool wide = a.dtype == DType::f64;
  const auto narrow = [](DType t) { return t == DType::f32 || t == DType::bf16; };
  check(wide ? b.dtype == DType::f64 && c.dtype == DType::f64 : narrow(a.dtype) && narrow(b.dtype) && narrow(c.dtype),
        "gemm: ", a.dtype, " times ", b.dtype, " into ", c.dtype);
  check(!add || c.dtype != DType::bf16, "gemm: adding to a bf16 matrix would round twice");
}

/// Calls f(numbers, stride) with where C [m, n] is to be made, and rounds what f left there if C is bf16.
template <class Number, class F>
void into(const GemmInstructions& set, Matrix c, int64_t m, int64_t n, F&& f) {
  if (c.dtype == dtype_of<Number>) return f(static_cast<Number*>(c.data), c.row_stride);
  if constexpr (std::is_same_v<Number, float>) {
    float* const wide = scratch<float>(Scratch::wide, m * n);
    f(wide, n);
    for (int64_t i = 0; i < m; ++i) set.round_to_bf16(static_cast<uint16_t*>(c.from(i, 0).data), wide + i * n, n);
  }
}

/// C [m, n] = [C +] A B on this thread; right: all of B packed, depth after depth, or null.
template <class P>
void multiply(const GemmInstructions& set, const GemmBlocks<P>& blocks, int64_t m, int64_t n, int64_t k, ConstMatrix a,
              ConstMatrix b, const P* right, Matrix c, bool add) {
  const Pieces depths = blocks.depths(k);
  into<typename Packed<P>::Number>(set, c, m, n, [&](auto* numbers, int64_t stride) {
    for (int64_t d = 0; d < depths.count; ++d) {
      const int64_t l = blocks.depth_begin(depths, d), depth = blocks.depth_size(depths, d, k);
      if (right && blocks.right_size(n, depth) * int64_t(sizeof(P)) <= kCached) {
        blocks.multiply_left(a.from(0, l), right + blocks.right_size(n, l), m, n, depth, numbers, stride, add || d > 0);
        continue;
      }
      P* const left = scratch<P>(Scratch::left, blocks.left_size(m, depth));
      blocks.pack_left(left, m, depth, a.from(0, l));
      if (right)
        blocks.multiply_packed(left, right + blocks.right_size(n, l), m, n, depth, numbers, stride, add || d > 0);
      else
        blocks.multiply(left, m, n, depth, b.from(l, 0), numbers, stride, add || d > 0);
    }
  });
}

/// The same over the pool, where B is worth packing once for several blocks of rows.
template <class P>
void multiply_shared(const GemmInstructions& set, const GemmBlocks<P>& blocks, int64_t m, int64_t n, int64_t k,
                     ConstMatrix a, ConstMatrix b, Matrix c, bool add, int64_t height) {
  const Pieces rows = Pieces::of(m, height), depths = blocks.depths(k);
  const int64_t across = blocks.panel_columns();
  constexpr int64_t kShared = int64_t(1) << 21;  // elements: 8 MiB of f32
  const int64_t most = std::max(across, kShared / std::max<int64_t>(1, blocks.packed(k)) / across * across);
  for (int64_t j = 0; j < n; j += most) {
    const int64_t width = std::min(most, n - j), panels = (width + across - 1) / across;
    P* const right = scratch<P>(Scratch::shared, blocks.right_size(width, k + 1));
    parallel_tasks(panels * depths.count, [&](int64_t task) {
      const int64_t d = task / panels, first = task % panels * across, l = blocks.depth_begin(depths, d);
      const int64_t depth = blocks.depth_size(depths, d, k);
      blocks.pack_panel(right + blocks.right_size(width, l) + first * blocks.packed(depth),
                        std::min(across, width - first), depth, b.from(l, j + first));
    });
    parallel_tasks(rows.count, [&](int64_t i) {
      multiply(set, blocks, rows.size(i), width, k, a.from(rows.begin(i), 0), b, right, c.from(rows.begin(i), j), add);
    });
  }
}

}  // namespace

void gemm_with(const GemmInstructions& set, int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c,
               bool add) {
  check_dtypes(a, b, c, add);
  const Pieces rows = Pieces::of(m, std::max(kRows, (int64_t(1) << 18) / std::max<int64_t>(k, 1)));
  if (n > 0)
    with_gemm_blocks(set, a.dtype, b.dtype, [&]<class P>(const GemmBlocks<P>& blocks) {
      for (int64_t i = 0; i < rows.count; ++i)
        multiply<P>(set, blocks, rows.size(i), n, k, a.from(rows.begin(i), 0), b, nullptr, c.from(rows.begin(i), 0),
                    add);
    });
}

void gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  gemm_with(widest_gemm_instructions(), m, n, k, a, b, c, add);
}

void parallel_gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  if (m == 0 || n == 0) return;
  if (m * n * std::max<int64_t>(k, 1) < (1 << 17)) return gemm(m, n, k, a, b, c, add);  // waking the pool costs more
  check_dtypes(a, b, c, add);
  const GemmInstructions& set = widest_gemm_instructions();
  with_gemm_blocks(set, a.dtype, b.dtype, [&]<class P>(const GemmBlocks<P>& blocks) {
    // Four pieces or more for each thread, so that none waits long for another; results do not depend on the cut.
    const int64_t wanted = 4 * threads(), high = set.f32.rows, across = blocks.panel_columns();
    if (m > kRows || n < wanted * across) {
      const int64_t height = std::clamp((m / wanted + high - 1) / high * high, 2 * high, std::max(kRows, 2 * high));
      return multiply_shared<P>(set, blocks, m, n, k, a, b, c, add, height);
    }
    const int64_t width = std::max<int64_t>(across, n / wanted / across * across);
    parallel_tasks((n + width - 1) / width, [&](int64_t task) {
      const int64_t j = task * width;
      multiply<P>(set, blocks, m, std::min(width, n - j), k, a, b.from(0, j), nullptr, c.from(0, j), add);
    });
  });
}

const char* gemm_instruction_set() { return gemm_instructions(0)->name; }

}  // namespace agon::cpu
