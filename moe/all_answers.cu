#include "moe/all_answers.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// Element i of the part, [n, m] with `size` elements, and its place in the whole.
template <class P, class W>
__global__ void take(P* part, const W* whole, int64_t m, int64_t width, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) part[i] = convert<P>(whole[i / m * width + i % m]);
}
template <class W, class P>
__global__ void put(W* whole, const P* part, int64_t m, int64_t width, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) whole[i / m * width + i % m] = convert<W>(part[i]);
}

__global__ void rows_of_one(int32_t* offsets, int64_t expert, int32_t n, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) offsets[i] = i > expert ? n : 0;
}

}  // namespace

void LocalAnswerScores::cuda(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                             int64_t chunk_bytes) {
  in_steps(scores, x, experts, score, chunk_bytes);
}

void LocalAnswerSlopes::cuda(const AnswerGradients& into, const Tensor& dscores, const Tensor& x,
                             const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes) {
  in_steps(into, dscores, x, experts, score, chunk_bytes);
}

void MatrixPart::Take::cuda(const Tensor& part, const Tensor& whole, int64_t row, int64_t column) {
  cuda::visit(part.dtype(), [&]<class P>() {
    cuda::visit(whole.dtype(), [&]<class W>() {
      cuda::launch({"part of a matrix", part, whole}, take<P, W>, cuda::blocks(part.size(), kThreads), kThreads, 0,
                   cuda::pointer<P>(part), cuda::pointer<const W>(whole) + row * whole.shape(1) + column, part.shape(1),
                   whole.shape(1), part.size());
    });
  });
}

void MatrixPart::Put::cuda(const Tensor& whole, const Tensor& part, int64_t row, int64_t column) {
  cuda::visit(part.dtype(), [&]<class P>() {
    cuda::visit(whole.dtype(), [&]<class W>() {
      cuda::launch({"part of a matrix", part, whole}, put<W, P>, cuda::blocks(part.size(), kThreads), kThreads, 0,
                   cuda::pointer<W>(whole) + row * whole.shape(1) + column, cuda::pointer<const P>(part), part.shape(1),
                   whole.shape(1), part.size());
    });
  });
}

void RowsOfOne::cuda(const Tensor& offsets, int64_t expert, int64_t n) {
  cuda::launch({"offsets of one expert", offsets}, rows_of_one, cuda::blocks(offsets.size(), kThreads), kThreads, 0,
               cuda::pointer<int32_t>(offsets), expert, n, offsets.size());
}

}  // namespace agon
