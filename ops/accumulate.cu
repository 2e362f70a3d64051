#include "ops/accumulate.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void add_all(double* sum, const T* x, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) sum[i] += convert<double>(x[i]);
}

template <class T>
void launch_add(const Tensor& sum, const Tensor& x) {
  cuda::launch({"accumulate", sum, x}, add_all<T>, cuda::blocks(x.size(), kThreads), kThreads, 0,
               cuda::pointer<double>(sum), cuda::pointer<const T>(x), x.size());
}

}  // namespace

void Accumulate::cuda(const Tensor& sum, const Tensor& x) {
  if (x.dtype() == DType::f64) return launch_add<double>(sum, x);
  cuda::visit(x.dtype(), [&]<class T>() { launch_add<T>(sum, x); });
}

}  // namespace agon
