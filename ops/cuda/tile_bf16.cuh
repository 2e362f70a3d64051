#pragma once
#include "ops/cuda/mma.cuh"
#include "ops/cuda/tile.cuh"

namespace agon::cuda {

/// A tile of 128 x 128 by four warps on tensor cores, 64 x 64 each, summed in f32. Operands pass through shared memory
/// in kStages stages of 32 along the depth, copied `Bytes` at a time while earlier ones are multiplied; fragments of
/// the next 16 are fetched while these are multiplied.
///
/// In shared memory an operand is in chunks of 8 numbers (16 bytes), stored where slot() says: the 8 chunks that
/// ldmatrix reads at once lie in different banks.
template <Along A, Along B, int Bytes>
class Bf16Tile {
 public:
  using Element = bf16;
  static constexpr int kRows = 128, kColumns = 128, kThreads = 128, kBlocks = 2;
  static constexpr Along kAlongB = B;

 private:
  static constexpr int kDepth = 32, kStages = 4, kSteps = kDepth / 16, kSide = 128, kOperand = kSide * kDepth;
  static_assert(kRows == kSide && kColumns == kSide && kSteps % 2 == 0);  // fragments alternate between two sets

 public:
  static constexpr size_t kShared = size_t(kStages) * 2 * kOperand * sizeof(bf16);

  __device__ explicit Bf16Tile(void* shared)
      : shared_(static_cast<bf16*>(shared)),
        lane_(int(threadIdx.x) % 32),
        row_(int(threadIdx.x) / 64 * 64),
        column_(int(threadIdx.x) / 32 % 2 * 64) {}

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k) sums_[i][j].r[k] = 0;
  }

  __device__ __forceinline__ void multiply(const Source<bf16>& a, const Source<bf16>& b) {
    clear();
    const int stages = (a.depth + kDepth - 1) / kDepth;
    if (stages == 0) return;
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < stages) copy_stage(s, a, b);
      commit_copies();
    }
    wait_for_copies<kStages - 2>();
    __syncthreads();
    Fragments fragments[2];
    fetch(fragments[0], 0, 0);
    for (int s = 0; s < stages; ++s) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        if (step == kSteps - 1) {
          // The next stage has arrived; and nobody reads this one any more, nor, after the last, any of this product's.
          wait_for_copies<kStages - 2>();
          __syncthreads();
          if (s + 1 < stages) fetch(fragments[0], s + 1, 0);
        } else {
          fetch(fragments[(step + 1) % 2], s, step + 1);
        }
        if (step == 0) {
          if (s + kStages - 1 < stages) copy_stage(s + kStages - 1, a, b);
          commit_copies();
        }
        multiply(fragments[step % 2]);
      }
    }
  }

  template <class F>
  __device__ __forceinline__ void each_pair(F&& f) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int j = 0; j < 8; ++j)
          f(row_ + 16 * i + row_of_c(lane_, 2 * half), column_ + 8 * j + column_of_c(lane_, 0), sums_[i][j].r[2 * half],
            sums_[i][j].r[2 * half + 1]);
  }

 private:
  struct Fragments {
    FragmentA a[4];
    FragmentB b[8];
  };

  /// Where chunk c of row r is: rows of 4 chunks along the depth, or of 16 along the side.
  template <Along W>
  __device__ static int slot(int r, int c) {
    return W == Along::depth ? 4 * r + (c ^ (r / 2 % 4)) : 16 * r + (c ^ (r % 8));
  }

  __device__ bf16* stage(int s) const { return shared_ + s % kStages * (2 * kOperand); }

  __device__ __forceinline__ void copy_stage(int s, const Source<bf16>& a, const Source<bf16>& b) const {
    copy_operand<A>(stage(s), a, s * kDepth);
    copy_operand<B>(stage(s) + kOperand, b, s * kDepth);
  }

  template <Along W>
  __device__ __forceinline__ void copy_operand(bf16* to, const Source<bf16>& from, int depth) const {
    constexpr int kChunks = W == Along::depth ? kDepth / 8 : kSide / 8;  // of a row
#pragma unroll
    for (int n = 0; n < kOperand / 8 / kThreads; ++n) {
      const int r = (int(threadIdx.x) + n * kThreads) / kChunks, c = int(threadIdx.x) % kChunks;
      const int i = W == Along::depth ? r : 8 * c, l = depth + (W == Along::depth ? 8 * c : r);
      copy_chunk(to + 8 * slot<W>(r, c), from, from.template at<W>(i, l), from.template valid<W>(i, l, 8));
    }
  }

  __device__ __forceinline__ static void copy_chunk(bf16* to, const Source<bf16>& source, const bf16* from, int valid) {
    constexpr int n = Bytes / int(sizeof(bf16));
#pragma unroll
    for (int i = 0; i < 8; i += n) {
      if constexpr (n == 1) {
        to[i] = i < valid ? from[i] : bf16();
      } else {
        const int here = valid <= i ? 0 : valid - i < n ? valid - i : n;
        copy_async<Bytes>(to + i, here ? from + i : source.data, here * int(sizeof(bf16)));
      }
    }
  }

  /// The 8 x 8 matrix that this lane's quarter of the warp names begins at (side, depth).
  template <Along W>
  __device__ __forceinline__ void fetch_matrices(uint32_t (&r)[4], const bf16* from, int side, int depth) const {
    if constexpr (W == Along::depth)
      load_matrices(r, from + 8 * slot<W>(side + lane_ % 8, depth / 8));
    else
      load_matrices_transposed(r, from + 8 * slot<W>(depth + lane_ % 8, side / 8));
  }

  __device__ __forceinline__ void fetch(Fragments& to, int s, int step) const {
    const bf16 *const a = stage(s), *const b = a + kOperand;
    const int low = lane_ / 8 % 2 * 8, high = lane_ / 16 * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) fetch_matrices<A>(to.a[i].r, a, row_ + 16 * i + low, 16 * step + high);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t r[4];
      fetch_matrices<B>(r, b, column_ + 16 * j + high, 16 * step + low);
      to.b[2 * j] = {{r[0], r[1]}};
      to.b[2 * j + 1] = {{r[2], r[3]}};
    }
  }

  __device__ __forceinline__ void multiply(const Fragments& f) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) mma(sums_[i][j], f.a[i], f.b[j]);
  }

  bf16* shared_;
  int lane_, row_, column_;  // this warp's corner
  FragmentC sums_[4][8];
};

}  // namespace agon::cuda
