#include "core/cuda/launch.cuh"
#include "moe/matrix_part.h"

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

}  // namespace

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

}  // namespace agon
