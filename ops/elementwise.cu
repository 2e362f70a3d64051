#include "ops/elementwise.h"

#include "core/cuda/reduce.cuh"
#include "ops/cuda/map.cuh"

namespace agon {

template void Binary<Add::Forward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Add::Forward&);
template void Binary<Subtract::Forward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Subtract::Forward&);
template void Binary<Multiply::Forward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Multiply::Forward&);
template void Unary<Scale::Forward>::cuda(const Tensor&, const Tensor&, const Scale::Forward&);

namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void cast(To* y, const From* x, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) y[i] = To(float(x[i]));
}

template <class T, class G>
__global__ void scale_rows(T* y, const T* x, const G* gain, int64_t width, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) y[i] = T(float(x[i]) * float(gain[i / width]));
}

/// A warp per row.
template <class T, class G>
__global__ void row_dots(G* dgain, const T* dy, const T* x, int64_t width, int64_t rows) {
  const int64_t n = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (n >= rows) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < width; i += 32) sum += float(dy[n * width + i]) * float(x[n * width + i]);
  sum = cuda::warp_sum(sum);
  if (threadIdx.x % 32 == 0) dgain[n] = G(sum);
}

}  // namespace

void Cast::Forward::cuda(const Tensor& y, const Tensor& x) {
  cuda::visit(y.dtype(), [&]<class To>() {
    cuda::visit(x.dtype(), [&]<class From>() {
      cuda::launch({"cast", x}, cast<To, From>, cuda::blocks(x.size(), kThreads), kThreads, 0, cuda::pointer<To>(y),
                   cuda::pointer<const From>(x), x.size());
    });
  });
}

void ScaleRows::Forward::cuda(const Tensor& y, const Tensor& x, const Tensor& gain) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::visit(gain.dtype(), [&]<class G>() {
      cuda::launch({"scale_rows", x, gain}, scale_rows<T, G>, cuda::blocks(x.size(), kThreads), kThreads, 0,
                   cuda::pointer<T>(y), cuda::pointer<const T>(x), cuda::pointer<const G>(gain), x.shape(-1), x.size());
    });
  });
}

void ScaleRows::Gain::cuda(const Tensor& dgain, const Tensor& dy, const Tensor& x) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::visit(dgain.dtype(), [&]<class G>() {
      cuda::launch({"scale_rows backward", dy, x}, row_dots<T, G>, cuda::blocks(x.shape().rows() * 32, kThreads),
                   kThreads, 0, cuda::pointer<G>(dgain), cuda::pointer<const T>(dy), cuda::pointer<const T>(x),
                   x.shape(-1), x.shape().rows());
    });
  });
}

}  // namespace agon
