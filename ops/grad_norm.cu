#include "ops/grad_norm.h"

#include "core/copy.h"
#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 16384;

/// partial[b] = the squares of piece b summed, in f64: those of f32 may overflow.
__global__ void square_pieces(double* partial, const float* x, int64_t n) {
  const int64_t begin = int64_t(blockIdx.x) * kPiece, end = begin + kPiece < n ? begin + kPiece : n;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += double(x[i]) * double(x[i]);
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// One block.
__global__ void sum_pieces(double* sum, const double* partial, int64_t n) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) mine += partial[i];
  mine = cuda::block_sum(mine);
  if (threadIdx.x == 0) sum[0] = mine;
}

/// Whoever finds one writes the same.
__global__ void find_non_finite(int* found, const float* x, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n && !(x[i] - x[i] == 0)) *found = 1;
}

}  // namespace

void GradNorm::SquareSum::cuda(const Tensor& sum, std::span<Parameter* const> parameters) {
  int64_t pieces = 0;
  for (const Parameter* p : parameters) pieces += cuda::blocks(p->grad.size(), kPiece);
  const Tensor partial({pieces}, DType::f64, sum.device());
  int64_t first = 0;
  for (const Parameter* p : parameters) {
    const unsigned blocks = cuda::blocks(p->grad.size(), kPiece);
    cuda::launch({"grad_square_sum", p->grad}, square_pieces, blocks, kThreads, 0,
                 cuda::pointer<double>(partial) + first, cuda::pointer<const float>(p->grad), p->grad.size());
    first += blocks;
  }
  cuda::launch({"grad_square_sum", partial}, sum_pieces, 1, kThreads, 0, cuda::pointer<double>(sum),
               cuda::pointer<const double>(partial), pieces);
}

void GradNorm::AllFinite::cuda(const Tensor& t, bool* finite) {
  const Tensor found({1}, DType::i32, t.device());
  found.zero();
  cuda::launch({"first_non_finite", t}, find_non_finite, cuda::blocks(t.size(), kThreads), kThreads, 0,
               cuda::pointer<int32_t>(found), cuda::pointer<const float>(t), t.size());
  *finite = found.item() == 0;
}

}  // namespace agon
