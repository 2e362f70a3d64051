#include "core/copy.h"

#include <cmath>

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void convert_all(To* to, const From* from, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = convert<To>(from[i]);
}

template <class T>
__global__ void set_all(T* to, T value, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = value;
}

__global__ void set_steps(int32_t* to, int64_t first, int64_t step, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = int32_t(first + i * step);
}

template <class F>
void visit_on_gpu(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::f16:
    case DType::u8:
      check(false, "a GPU does not hold tensors of ", t);
  }
}

void transfer(const Tensor& to, const Tensor& from, cudaMemcpyKind kind) {
  if (from.bytes() == 0) return;
  cuda::check_call(
      cudaMemcpyAsync(const_cast<void*>(to.address()), from.address(), size_t(from.bytes()), kind, cuda::stream()));
}

}  // namespace

void Copy::cuda(const Tensor& to, const Tensor& from) {
  const bool up = to.device().kind == Device::cuda, there = from.device().kind == Device::cuda;
  if (up && there) {
    check(to.device() == from.device(), "copy from ", from.device(), " to ", to.device(), ": ranks exchange tensors");
    if (to.dtype() == from.dtype()) return transfer(to, from, cudaMemcpyDeviceToDevice);
    return visit_on_gpu(to.dtype(), [&]<class To>() {
      visit_on_gpu(from.dtype(), [&]<class From>() {
        cuda::launch({"copy", to, from}, convert_all<To, From>, cuda::blocks(to.size(), kThreads), kThreads, 0,
                     cuda::pointer<To>(to), cuda::pointer<const From>(from), to.size());
      });
    });
  }
  // Dtypes change on the host.
  if (to.dtype() != from.dtype()) {
    if (up) {
      const Tensor converted_here = converted(from, to.dtype());
      return cuda(to, converted_here);
    }
    const Tensor arrived(from.shape(), from.dtype());
    cuda(arrived, from);
    return cpu(to, arrived);
  }
  count_crossing(up);
  transfer(to, from, up ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost);
  if (!up) cuda::check_call(cudaStreamSynchronize(cuda::stream()));
}

void Fill::cuda(const Tensor& t, double value) {
  if (t.size() == 0) return;
  if (value == 0 && !std::signbit(value))
    return cuda::check_call(cudaMemsetAsync(const_cast<void*>(t.address()), 0, size_t(t.bytes()), cuda::stream()));
  visit_on_gpu(t.dtype(), [&]<class T>() {
    cuda::launch({"fill", t}, set_all<T>, cuda::blocks(t.size(), kThreads), kThreads, 0, cuda::pointer<T>(t),
                 convert<T>(value), t.size());
  });
}

void FillSteps::cuda(const Tensor& t, int64_t first, int64_t step) {
  cuda::launch({"fill_steps", t}, set_steps, cuda::blocks(t.size(), kThreads), kThreads, 0, cuda::pointer<int32_t>(t),
               first, step, t.size());
}

}  // namespace agon
