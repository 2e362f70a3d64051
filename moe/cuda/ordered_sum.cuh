#pragma once
#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"

// ordered_sum() on a GPU: pieces of a fixed number of rows are summed in a fixed order, then the pieces are. In f64, N
// sums at a time.

namespace agon::cuda {

inline constexpr int kSumThreads = 256;
inline constexpr int64_t kRowsOfPiece = 64;

/// A warp per row: f(row, lane, sums) adds what this lane finds in the row to sums[0] ... sums[N - 1].
template <int N, class F>
__global__ void sum_pieces(double* of_piece, int64_t rows, F f) {
  double sums[N] = {};
  const int64_t first = int64_t(blockIdx.x) * kRowsOfPiece;
  const int64_t end = first + kRowsOfPiece < rows ? first + kRowsOfPiece : rows;
  for (int64_t row = first + threadIdx.x / 32; row < end; row += kSumThreads / 32) f(row, int(threadIdx.x % 32), sums);
  for (int i = 0; i < N; ++i) {
    const double whole = block_sum(sums[i]);
    if (threadIdx.x == 0) of_piece[int64_t(blockIdx.x) * N + i] = whole;
  }
}

/// For one block of kSumThreads threads, each of which gets the totals of [pieces, N].
template <int N>
__device__ void add_pieces(double (&totals)[N], const double* of_piece, int64_t pieces) {
  for (int i = 0; i < N; ++i) {
    double sum = 0;
    for (int64_t p = threadIdx.x; p < pieces; p += kSumThreads) sum += of_piece[p * N + i];
    totals[i] = block_sum(sum);
  }
}

/// finish(totals) by one thread.
template <int N, class G>
__global__ void finish_sums(const double* of_piece, int64_t pieces, G finish) {
  double totals[N];
  add_pieces(totals, of_piece, pieces);
  if (threadIdx.x == 0) finish(totals);
}

/// The sums of the pieces, [pieces, N] f64. F's operator() is a device function, as in sum_pieces.
template <int N, class F>
Tensor piece_sums(const Label& label, Device device, int64_t rows, const F& f) {
  Tensor sums({blocks(rows, kRowsOfPiece), N}, DType::f64, device);
  launch(label, sum_pieces<N, F>, unsigned(sums.shape(0)), kSumThreads, 0, pointer<double>(sums), rows, f);
  return sums;
}

/// One sum over rows: f as in sum_pieces, finish(const double* total) writes what is made of it.
template <class F, class G>
void ordered_sum(const Label& label, Device device, int64_t rows, const F& f, const G& finish) {
  const Tensor sums = piece_sums<1>(label, device, rows, f);
  launch(label, finish_sums<1, G>, 1, kSumThreads, 0, pointer<const double>(sums), sums.shape(0), finish);
}

/// A way to finish: *to = factor * total.
struct StoreScaled {
  float* to;
  double factor;
  __device__ void operator()(const double* total) const { *to = float(factor * total[0]); }
};

}  // namespace agon::cuda
