#include "moe/dispatch.h"

#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"
#include "core/cuda/vec.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

struct TokenOfRow {
  const int32_t *pair_of_row, *token_of_pair;
  __device__ int64_t operator()(int64_t n) const {
    const int32_t pair = pair_of_row[n];
    return pair < 0 ? -1 : token_of_pair[pair];
  }
};

struct ByIndex {
  const int32_t* index;
  int64_t length;
  __device__ int64_t operator()(int64_t n) const { return n < length ? index[n] : -1; }
};

/// y[n] = x[source(n)], 0 where source(n) is negative; N neighbours a thread.
template <class T, int N, class Source>
__global__ void copy_rows(T* y, const T* x, Source source, int64_t width, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int64_t from = source(i / width);
  cuda::Vec<T, N> v;
  if (from < 0)
    for (int j = 0; j < N; ++j) v[j] = T(0.f);
  else
    v = cuda::load<N>(x + from * width + i % width);
  cuda::store(y + i, v);
}

/// N neighbours of a token's sum a thread.
template <class T, int N>
__global__ void sum_rows(T* y, const T* rows, const float* weight, const int32_t* row_of_pair,
                         const int32_t* token_offsets, int64_t width, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= size) return;
  const int64_t t = i / width;
  float sum[N] = {};
  for (int32_t pair = token_offsets[t]; pair < token_offsets[t + 1]; ++pair) {
    const auto row = cuda::load<N>(rows + row_of_pair[pair] * width + i % width);
    const float w = weight ? weight[pair] : 1;
    for (int j = 0; j < N; ++j) sum[j] += w * float(row[j]);
  }
  cuda::Vec<T, N> out;
  for (int j = 0; j < N; ++j) out[j] = T(sum[j]);
  cuda::store(y + i, out);
}

/// A warp per row.
template <class T>
__global__ void sum_rows_backward(T* drows, float* dweight, const T* dy, const T* rows, const float* weight,
                                  const int32_t* pair_of_row, const int32_t* token_of_pair, int64_t width, int64_t n) {
  const int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = int(threadIdx.x) % 32;
  if (row >= n) return;
  const int32_t pair = pair_of_row[row];
  if (pair < 0) {
    for (int64_t d = lane; d < width; d += 32) drows[row * width + d] = T(0.f);
    return;
  }
  const T* const slope = dy + token_of_pair[pair] * width;
  const float w = weight[pair];
  float sum = 0;
  for (int64_t d = lane; d < width; d += 32) {
    sum += float(rows[row * width + d]) * float(slope[d]);
    drows[row * width + d] = T(w * float(slope[d]));
  }
  sum = cuda::warp_sum(sum);
  if (lane == 0) dweight[pair] = sum;
}

int64_t width_of(const Tensor& x) { return x.shape().with(0, 1).size(); }

template <class Source>
void launch_copy(const cuda::Label& label, const Tensor& y, const Tensor& x, Source source) {
  cuda::visit(y.dtype(), [&]<class T>() {
    cuda::by_width<T>(width_of(y), [&]<int N>() {
      cuda::launch(label, copy_rows<T, N, Source>, cuda::blocks(y.size(), kThreads * N), kThreads, 0,
                   cuda::pointer<T>(y), cuda::pointer<const T>(x), source, width_of(y), y.size());
    });
  });
}

}  // namespace

void Dispatch::Permute::cuda(const Tensor& rows, const Tensor& x, const Plan& plan) {
  launch_copy(
      {"permute", x, rows}, rows, x,
      TokenOfRow{cuda::pointer<const int32_t>(plan.pair_of_row), cuda::pointer<const int32_t>(plan.token_of_pair)});
}

void Dispatch::Gather::cuda(const Tensor& y, const Tensor& x, const Tensor& index) {
  launch_copy({"gather", x, index}, y, x, ByIndex{cuda::pointer<const int32_t>(index), index.size()});
}

void Dispatch::Combine::cuda(const Tensor& y, const Tensor& rows, const Tensor& weight, const Plan& plan) {
  cuda::visit(y.dtype(), [&]<class T>() {
    cuda::by_width<T>(width_of(y), [&]<int N>() {
      cuda::launch({"combine", rows, plan.token_offsets}, sum_rows<T, N>, cuda::blocks(y.size(), kThreads * N),
                   kThreads, 0, cuda::pointer<T>(y), cuda::pointer<const T>(rows), cuda::pointer<const float>(weight),
                   cuda::pointer<const int32_t>(plan.row_of_pair), cuda::pointer<const int32_t>(plan.token_offsets),
                   width_of(y), y.size());
    });
  });
}

void Dispatch::CombineBackward::cuda(const Tensor& drows, const Tensor& dweight, const Tensor& dy, const Tensor& rows,
                                     const Tensor& weight, const Plan& plan) {
  dweight.zero();
  cuda::visit(rows.dtype(), [&]<class T>() {
    cuda::launch({"combine backward", dy, rows, weight}, sum_rows_backward<T>,
                 cuda::blocks(rows.shape(0) * 32, kThreads), kThreads, 0, cuda::pointer<T>(drows),
                 cuda::pointer<float>(dweight), cuda::pointer<const T>(dy), cuda::pointer<const T>(rows),
                 cuda::pointer<const float>(weight), cuda::pointer<const int32_t>(plan.pair_of_row),
                 cuda::pointer<const int32_t>(plan.token_of_pair), width_of(rows), rows.shape(0));
  });
}

}  // namespace agon
