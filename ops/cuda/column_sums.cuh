#pragma once
#include <algorithm>

#include "core/cuda/launch.cuh"

// Sums over the rows of a tensor, in f32 and in a fixed order.

namespace agon::cuda {

inline constexpr int kColumnLanes = 32, kRowLanes = 8;

/// Piece y of the rows, all columns: out[y, j] = [out[y, j] +] factor * the sum of term(n, j) over the piece's rows n.
/// Thread (r, c) of a block takes every eighth row, beginning with row r; the eight sums are added in order.
template <class Out, class F>
__global__ void sum_columns(Out* out, bool add, int64_t rows, int64_t piece, int64_t width, F term, float factor) {
  __shared__ float of_row[kRowLanes][kColumnLanes];
  const int lane = int(threadIdx.x) % kColumnLanes, row = int(threadIdx.x) / kColumnLanes;
  const int64_t j = int64_t(blockIdx.x) * kColumnLanes + lane, begin = int64_t(blockIdx.y) * piece,
                end = begin + piece < rows ? begin + piece : rows;
  float sum = 0;
  if (j < width)
    for (int64_t n = begin + row; n < end; n += kRowLanes) sum += term(n, j);
  of_row[row][lane] = sum;
  __syncthreads();
  if (row > 0 || j >= width) return;
  for (int r = 1; r < kRowLanes; ++r) sum += of_row[r][lane];
  Out& to = out[int64_t(blockIdx.y) * width + j];
  sum *= factor;
  to = Out(add ? float(to) + sum : sum);
}

/// The terms of a sum that were stored, by rows.
template <class T>
struct Stored {
  const T* from;
  int64_t width;
  __device__ float operator()(int64_t n, int64_t j) const { return float(from[n * width + j]); }
};

/// out[j] = [out[j] +] factor * the sum over n < rows of term(n, j), for the elements j of `out`, f32 or bf16. F is a
/// struct with `__device__ float operator()(int64_t n, int64_t j) const`. Pieces of the rows, then the pieces.
template <class F>
void column_sums(const Label& label, const Tensor& out, bool add, int64_t rows, const F& term, float factor = 1) {
  constexpr int64_t kMostPieces = 256, kLeastRows = 256;
  const int64_t width = out.size(), piece = std::max(kLeastRows, (rows + kMostPieces - 1) / kMostPieces);
  const unsigned columns = blocks(width, kColumnLanes), pieces = blocks(rows, piece);
  visit(out.dtype(), [&]<class Out>() {
    if (pieces <= 1)
      return launch(label, sum_columns<Out, F>, columns, kColumnLanes * kRowLanes, 0, pointer<Out>(out), add, rows,
                    piece, width, term, factor);
    const Tensor partial({pieces, width}, DType::f32, out.device());
    launch(label, sum_columns<float, F>, dim3(columns, pieces), kColumnLanes * kRowLanes, 0, pointer<float>(partial),
           false, rows, piece, width, term, 1.f);
    launch(label, sum_columns<Out, Stored<float>>, columns, kColumnLanes * kRowLanes, 0, pointer<Out>(out), add,
           int64_t(pieces), int64_t(pieces), width, Stored<float>{pointer<const float>(partial), width}, factor);
  });
}

}  // namespace agon::cuda
