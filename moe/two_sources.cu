#include "core/cuda/launch.cuh"
#include "core/cuda/vec.cuh"
#include "moe/two_sources.h"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int32_t kNone = TwoSources::kNone;

template <class T>
struct Rows {
  const T *first, *second;
  int64_t width;
  __device__ const T* operator()(int32_t at) const {
    return at >= 0 ? first + at * width : second + int64_t(~at) * width;
  }
};

/// N neighbours a thread.
template <class T, int N>
__global__ void gather(T* y, Rows<T> rows, const int32_t* index, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int32_t at = index[i / rows.width];
  cuda::Vec<T, N> v;
  if (at == kNone)
    for (int j = 0; j < N; ++j) v[j] = T(0.f);
  else
    v = cuda::load<N>(rows(at) + i % rows.width);
  cuda::store(y + i, v);
}

/// N neighbours of a token's sum a thread.
template <class T, int N>
__global__ void sum(T* y, Rows<T> rows, const int32_t* index, const int32_t* offsets, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int64_t t = i / rows.width, column = i % rows.width;
  float total[N] = {};
  cuda::Vec<T, N> row{};
  int summed = 0;
  for (int32_t n = offsets[t]; n < offsets[t + 1]; ++n) {
    if (index[n] == kNone) continue;
    row = cuda::load<N>(rows(index[n]) + column);
    for (int j = 0; j < N; ++j) total[j] += float(row[j]);
    ++summed;
  }
  if (summed != 1)
    for (int j = 0; j < N; ++j) row[j] = T(total[j]);
  cuda::store(y + i, row);
}

int64_t width_of(const Tensor& x) { return x.shape().with(0, 1).size(); }

}  // namespace

void TwoSources::Gather::cuda(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index) {
  cuda::visit(y.dtype(), [&]<class T>() {
    cuda::by_width<T>(width_of(y), [&]<int N>() {
      cuda::launch({"gather of two", y, first, second}, gather<T, N>, cuda::blocks(y.size(), kThreads * N), kThreads, 0,
                   cuda::pointer<T>(y),
                   Rows<T>{cuda::pointer<const T>(first), cuda::pointer<const T>(second), width_of(y)},
                   cuda::pointer<const int32_t>(index), y.size());
    });
  });
}

void TwoSources::Sum::cuda(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index,
                           const Tensor& offsets) {
  cuda::visit(y.dtype(), [&]<class T>() {
    cuda::by_width<T>(width_of(y), [&]<int N>() {
      cuda::launch({"sum of two", y, first, second}, sum<T, N>, cuda::blocks(y.size(), kThreads * N), kThreads, 0,
                   cuda::pointer<T>(y),
                   Rows<T>{cuda::pointer<const T>(first), cuda::pointer<const T>(second), width_of(y)},
                   cuda::pointer<const int32_t>(index), cuda::pointer<const int32_t>(offsets), y.size());
    });
  });
}

}  // namespace agon
