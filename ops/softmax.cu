#include "ops/softmax.h"

#include "ops/cpu/exp.h"
#include "ops/cuda/rows.cuh"

namespace agon {

namespace {

/// As on the CPU: twice the exponential, so that the sum does not see the rounding to T.
template <class Row, class T>
__global__ void forward(T* y, const T* x, int64_t width, int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const T* const from = x + r.row * width;
  T* const to = y + r.row * width;
  const float top = cuda::row_max(r, width, [=](int64_t i) { return float(from[i]); });
  const float inverse = 1 / cuda::row_sum(r, width, [=](int64_t i) { return cpu::exp(float(from[i]) - top); });
  for (int64_t i = r.rank; i < width; i += Row::kThreads) to[i] = T(cpu::exp(float(from[i]) - top) * inverse);
}

/// As on the CPU: slopes are taken from that of the largest p.
template <class Row, class T>
__global__ void backward(T* dx, const T* dy, const T* y, int64_t width, int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const T *const p = y + r.row * width, *const slope = dy + r.row * width;
  T* const to = dx + r.row * width;
  const float top = cuda::row_max(r, width, [=](int64_t i) { return float(p[i]); });
  int64_t at = width - 1;  // where the first of the largest is
  for (int64_t i = r.rank; i < width; i += Row::kThreads)
    if (float(p[i]) == top && i < at) at = i;
  at = r.reduce(at, width - 1, cuda::Smaller());
  const float base = float(slope[at]);
  const float mean = cuda::row_sum(r, width, [=](int64_t i) { return float(p[i]) * (float(slope[i]) - base); });
  for (int64_t i = r.rank; i < width; i += Row::kThreads) to[i] = T(float(p[i]) * (float(slope[i]) - base - mean));
}

}  // namespace

void Softmax::Forward::cuda(const Tensor& y, const Tensor& x) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::by_row_width(x.shape(-1), [&]<class Row>() {
      cuda::launch_rows<Row>({"softmax", x}, forward<Row, T>, x.shape().rows(), cuda::pointer<T>(y),
                             cuda::pointer<const T>(x), x.shape(-1), x.shape().rows());
    });
  });
}

void Softmax::Backward::cuda(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  if (y.size() == 0) return;
  cuda::visit(y.dtype(), [&]<class T>() {
    cuda::by_row_width(y.shape(-1), [&]<class Row>() {
      cuda::launch_rows<Row>({"softmax backward", y}, backward<Row, T>, y.shape().rows(), cuda::pointer<T>(dx),
                             cuda::pointer<const T>(dy), cuda::pointer<const T>(y), y.shape(-1), y.shape().rows());
    });
  });
}

}  // namespace agon
