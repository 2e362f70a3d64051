#pragma once
#include "core/cuda/vec.cuh"
#include "ops/cuda/tile.cuh"

namespace agon::cuda {

/// A tile of 128 x 128 by 256 threads in f32 without tensor cores: a thread has 8 x 8, and every sum runs along the
/// depth in order. The next 8 along the depth are fetched into registers while these are multiplied.
template <Along A, Along B>
class F32Tile {
 public:
  using Element = float;
  static constexpr int kRows = 128, kColumns = 128, kThreads = 256, kBlocks = 2;
  static constexpr Along kAlongB = B;

 private:
  static constexpr int kDepth = 8, kSide = 128, kStride = kSide + 4, kEach = kSide * kDepth / kThreads;

 public:
  static constexpr size_t kShared = 2 * size_t(kDepth) * kStride * sizeof(float);

  __device__ explicit F32Tile(void* shared)
      : a_(static_cast<float*>(shared)),
        b_(a_ + kDepth * kStride),
        row_(int(threadIdx.x) / 16 * 4),
        column_(int(threadIdx.x) % 16 * 4) {}

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) sums_[i][j] = 0;
  }

  __device__ __forceinline__ void multiply(const Source<float>& a, const Source<float>& b) {
    clear();
    float next_a[kEach], next_b[kEach];
    if (a.depth > 0) fetch<A>(next_a, a, 0), fetch<B>(next_b, b, 0);
    for (int depth = 0; depth < a.depth; depth += kDepth) {
      __syncthreads();  // what is there has been used
      put<A>(a_, next_a);
      put<B>(b_, next_b);
      __syncthreads();
      if (depth + kDepth < a.depth) fetch<A>(next_a, a, depth + kDepth), fetch<B>(next_b, b, depth + kDepth);
#pragma unroll
      for (int l = 0; l < kDepth; ++l) {
        const float *const at = a_ + l * kStride + row_, *const bt = b_ + l * kStride + column_;
        const Vec<float, 4> left[2] = {load<4>(at), load<4>(at + 64)}, right[2] = {load<4>(bt), load<4>(bt + 64)};
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
          for (int j = 0; j < 8; ++j) sums_[i][j] += left[i / 4][i % 4] * right[j / 4][j % 4];
      }
    }
  }

  template <class F>
  __device__ __forceinline__ void each_pair(F&& f) const {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; j += 2)
        f(row_ + i / 4 * 64 + i % 4, column_ + j / 4 * 64 + j % 4, sums_[i][j], sums_[i][j + 1]);
  }

 private:
  /// The element (side, depth) of a tile that this thread carries as its nth: neighbours in memory by neighbouring
  /// threads.
  template <Along W>
  __device__ static int side_of(int n) {
    const int at = int(threadIdx.x) + n * kThreads;
    return W == Along::depth ? at / kDepth : at % kSide;
  }
  template <Along W>
  __device__ static int depth_of(int n) {
    const int at = int(threadIdx.x) + n * kThreads;
    return W == Along::depth ? at % kDepth : at / kSide;
  }
  template <Along W>
  __device__ __forceinline__ static void fetch(float (&to)[kEach], const Source<float>& from, int depth) {
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const int i = side_of<W>(n), l = depth + depth_of<W>(n);
      to[n] = i < from.side && l < from.depth ? *from.template at<W>(i, l) : 0.0f;
    }
  }
  template <Along W>
  __device__ __forceinline__ static void put(float* to, const float (&from)[kEach]) {
#pragma unroll
    for (int n = 0; n < kEach; ++n) to[depth_of<W>(n) * kStride + side_of<W>(n)] = from[n];
  }

  float *a_, *b_;
  int row_, column_;
  float sums_[8][8];
};

}  // namespace agon::cuda
