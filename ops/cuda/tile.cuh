#pragma once
#include <initializer_list>

#include "core/cuda/launch.cuh"

// What kernels of tiles have in common: a block computes a tile of a matrix product, C = A B, summed over the depth.
// A tile is a class with
//   Element, kRows, kColumns, kThreads, kBlocks (a processor's, at once), kShared (bytes of dynamic shared memory), kAlongB
//
//   multiply(a, b): the product of two sources; clear(): its absence
//
//   each_pair(f): f(row, column, value, value right of it) for what this thread holds of the tile; column is even

namespace agon::cuda {

/// Whose neighbours are adjacent in memory: those along the depth, or those along the side that becomes one of C.
enum class Along { depth, side };

/// An operand from a tile's corner on. Element (i, l), i along the side and l along the depth, is data[i * stride + l]
/// where it lies along the depth, data[l * stride + i] where along the side. Beyond `side` and `depth` there are zeros.
template <class T>
struct Source {
  const T* data;
  int64_t stride;
  int side, depth;

  /// The number of elements from (i, l) on that exist and are adjacent, at most n.
  template <Along W>
  __device__ int valid(int i, int l, int n) const {
    const int left = W == Along::depth ? depth - l : side - i;
    const bool there = W == Along::depth ? i < side : l < depth;
    return !there || left <= 0 ? 0 : left < n ? left : n;
  }
  template <Along W>
  __device__ const T* at(int i, int l) const {
    return W == Along::depth ? data + i * stride + l : data + l * stride + i;
  }
};

/// The bytes that can be copied at once from rows of these widths (of T), which start at these addresses: 16, 4 or
/// sizeof(T).
template <class T>
int bytes_at_once(std::initializer_list<int64_t> widths, std::initializer_list<const void*> starts) {
  const auto all = [&](int bytes) {
    for (const int64_t width : widths)
      if (width * int64_t(sizeof(T)) % bytes != 0) return false;
    for (const void* start : starts)
      if (reinterpret_cast<uintptr_t>(start) % uintptr_t(bytes) != 0) return false;
    return true;
  };
  return all(16) ? 16 : all(4) ? 4 : int(sizeof(T));
}

/// Blocks of a kernel that walks `tiles` by itself: as many as run at once.
template <class Tile>
unsigned resident_blocks(int64_t tiles) {
  int device = 0, processors = 0;
  check_call(cudaGetDevice(&device));
  check_call(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return unsigned(tiles < processors * Tile::kBlocks ? tiles : processors * Tile::kBlocks);
}

}  // namespace agon::cuda
