#include "ops/cpu/gemm.h"

#include <algorithm>
#include <cstddef>
#include <memory>

#include "core/parallel.h"
#include "core/storage.h"
#include "ops/cpu/gemm_kernels.h"

namespace agon::cpu {

namespace {

// A block of A, [kBlockRows, kDepth], stays in the second-level cache while panels of B, [kDepth, two registers], are
// packed one at a time into the first. The chains go on through C from one depth to the next.
constexpr int64_t kDepth = 256, kBlockRows = 512, kBlockColumns = 1024;

struct Panels {
  int64_t count, total;
  static Panels of(int64_t total, int64_t most) { return {(total + most - 1) / most, total}; }
  int64_t begin(int64_t i) const { return total / count * i + std::min(i, total % count); }
  int64_t size(int64_t i) const { return begin(i + 1) - begin(i); }
};

/// Memory for packed panels, kept by each thread between calls; no result depends on what is in it.
template <class T>
T* scratch(int slot, int64_t n) {
  struct Block {
    std::shared_ptr<std::byte> bytes;
    size_t size = 0;
  };
  thread_local Block blocks[3];
  Block& block = blocks[slot];
  if (const size_t wanted = size_t(n) * sizeof(T); block.size < wanted) {
    block = {};
    block = {allocate_block({}, wanted), wanted};
  }
  return reinterpret_cast<T*>(block.bytes.get());
}

template <class T>
struct Product {
  const GemmInstructions& instructions;
  const GemmKernel<T>& kernel;
  ConstMatrix a, b;
  Matrix c;
  bool add;

  static T* numbers(Matrix x) { return static_cast<T*>(x.data); }

  /// Packs lanes of k numbers each: rows of A, columns of B.
  void pack(T* to, int64_t width, int64_t lanes, int64_t k, ConstMatrix from, int64_t lane_stride,
            int64_t k_stride) const {
    if constexpr (std::is_same_v<T, float>)
      if (from.dtype == DType::bf16)
        return instructions.pack_bf16(to, width, lanes, k, static_cast<const uint16_t*>(from.data), lane_stride,
                                      k_stride);
    kernel.pack(to, width, lanes, k, static_cast<const T*>(from.data), lane_stride, k_stride);
  }

  /// Rows [i0, i0 + m) and columns [j0, j0 + n) of C at `to`, for all of k.
  void block(int64_t i0, int64_t m, int64_t j0, int64_t n, int64_t k, Matrix to) const {
    const Panels rows = Panels::of(m, kernel.rows);
    T* const packed_a = scratch<T>(0, m * std::min(k, kDepth));
    T* const packed_b = scratch<T>(1, 2 * kernel.numbers * std::min(k, kDepth));
    // A panel of B that is used once and lies as the tile wants it is left where it is.
    const bool direct = rows.count == 1 && b.column_stride == 1 && b.dtype == dtype_of<T>;
    int64_t l0 = 0;
    do {
      const int64_t depth = std::min(kDepth, k - l0);
      for (int64_t p = 0; p < rows.count; ++p)
        pack(packed_a + rows.begin(p) * depth, rows.size(p), rows.size(p), depth, a.from(i0 + rows.begin(p), l0),
             a.row_stride, a.column_stride);
      for (int64_t j = 0; j < n; j += 2 * kernel.numbers) {
        const int64_t columns = std::min(2 * kernel.numbers, n - j), vectors = columns > kernel.numbers ? 2 : 1;
        const int64_t width = vectors * kernel.numbers;
        const ConstMatrix from = b.from(l0, j0 + j);
        const bool here = direct && columns == width;
        if (!here) pack(packed_b, width, columns, depth, from, b.column_stride, b.row_stride);
        for (int64_t p = 0; p < rows.count; ++p)
          kernel.tile({rows.size(p), vectors, columns, depth, packed_a + rows.begin(p) * depth,
                       here ? static_cast<const T*>(from.data) : packed_b, here ? b.row_stride : width,
                       numbers(to.from(rows.begin(p), j)), to.row_stride, add || l0 > 0});
      }
      l0 += kDepth;
    } while (l0 < k);
  }

  void operator()(int64_t m, int64_t n, int64_t k) const {
    const Panels rows = Panels::of(m, kBlockRows);
    for (int64_t i = 0; i < rows.count; ++i)
      for (int64_t j = 0; j < n; j += kBlockColumns) {
        const int64_t i0 = rows.begin(i), height = rows.size(i), width = std::min(kBlockColumns, n - j);
        if (c.dtype == dtype_of<T>)
          block(i0, height, j, width, k, c.from(i0, j));
        else
          rounded(i0, height, j, width, k);
      }
  }

  void rounded(int64_t i0, int64_t m, int64_t j0, int64_t n, int64_t k) const {
    const Matrix wide{scratch<T>(2, m * n), dtype_of<T>, n};
    block(i0, m, j0, n, k, wide);
    if constexpr (std::is_same_v<T, float>)
      for (int64_t i = 0; i < m; ++i)
        instructions.round_to_bf16(static_cast<uint16_t*>(c.from(i0 + i, j0).data), numbers(wide.from(i, 0)), n);
  }
};

}  // namespace

void gemm_with(const GemmInstructions& instructions, int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b,
               Matrix c, bool add) {
  const bool wide = a.dtype == DType::f64;
  const auto narrow = [](DType t) { return t == DType::f32 || t == DType::bf16; };
  check(wide ? b.dtype == DType::f64 && c.dtype == DType::f64 : narrow(a.dtype) && narrow(b.dtype) && narrow(c.dtype),
        "gemm: ", a.dtype, " times ", b.dtype, " into ", c.dtype);
  check(!add || c.dtype != DType::bf16, "gemm: adding to a bf16 matrix would round twice");
  if (wide)
    Product<double>{instructions, instructions.f64, a, b, c, add}(m, n, k);
  else
    Product<float>{instructions, instructions.f32, a, b, c, add}(m, n, k);
}

void gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  static const GemmInstructions& widest = *gemm_instructions(0);
  gemm_with(widest, m, n, k, a, b, c, add);
}

void parallel_gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add) {
  if (m == 0 || n == 0) return;
  // Large tiles pack less, small ones leave enough for every thread.
  int64_t height = std::min<int64_t>(m, 256), width = std::min<int64_t>(n, 512);
  while (((m - 1) / height + 1) * ((n - 1) / width + 1) < 16 && std::max(height, width) > 64)
    if (width >= height)
      width = (width / 2 + 31) / 32 * 32;
    else
      height = (height + 1) / 2;
  const Panels rows = Panels::of(m, height);
  const int64_t across = (n + width - 1) / width;
  parallel_tasks(rows.count * across, [&](int64_t task) {
    const int64_t i = task / across, j = task % across * width;
    gemm(rows.size(i), std::min(width, n - j), k, a.from(rows.begin(i), 0), b.from(0, j), c.from(rows.begin(i), j),
         add);
  });
}

const char* gemm_instruction_set() { return gemm_instructions(0)->name; }

}  // namespace agon::cpu
