#include "ops/reduce.h"

#include "core/cuda/reduce.cuh"
#include "ops/cuda/column_sums.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 4096;

/// out[b] = factor * the sum of piece b of x.
template <class T>
__global__ void sum_pieces(float* out, const T* x, int64_t piece, int64_t n, float factor) {
  const int64_t begin = int64_t(blockIdx.x) * piece, end = begin + piece < n ? begin + piece : n;
  float sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += float(x[i]);
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = factor * sum;
}

/// dx[i] = factor * dy[i mod width].
template <class T>
__global__ void spread(T* dx, const float* dy, float factor, int64_t width, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) dx[i] = T(dy[i % width] * factor);
}

void spread_over(const char* name, const Tensor& dx, const Tensor& dy, double factor) {
  cuda::visit(dx.dtype(), [&]<class T>() {
    cuda::launch({name, dx}, spread<T>, cuda::blocks(dx.size(), kThreads), kThreads, 0, cuda::pointer<T>(dx),
                 cuda::pointer<const float>(dy), float(factor), dy.size(), dx.size());
  });
}

}  // namespace

void Reduce::All::cuda(const Tensor& y, const Tensor& x, double factor) {
  const int64_t pieces = cuda::blocks(x.size(), kPiece);
  const Tensor partial({pieces}, DType::f32, x.device());
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::launch({"sum", x}, sum_pieces<T>, unsigned(pieces), kThreads, 0, cuda::pointer<float>(partial),
                 cuda::pointer<const T>(x), kPiece, x.size(), 1.f);
  });
  cuda::launch({"sum", x}, sum_pieces<float>, 1, kThreads, 0, cuda::pointer<float>(y),
               cuda::pointer<const float>(partial), pieces, pieces, float(factor));
}

void Reduce::Spread::cuda(const Tensor& dx, const Tensor& dy, double factor) {
  spread_over("sum backward", dx, dy, factor);
}

void Reduce::Columns::cuda(const Tensor& y, const Tensor& x, double factor) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::column_sums({"column_mean", x}, y, false, x.shape(0), cuda::Stored<T>{cuda::pointer<const T>(x), x.shape(1)},
                      float(factor));
  });
}

void Reduce::SpreadColumns::cuda(const Tensor& dx, const Tensor& dy, double factor) {
  spread_over("column_mean backward", dx, dy, factor);
}

}  // namespace agon
