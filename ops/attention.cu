#include "ops/attention.h"

#include <cmath>

#include "ops/cuda/attention_general.cuh"

namespace agon {

namespace {

constexpr int kDeltaThreads = 256;

cuda::AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& query_offsets,
                              const Tensor& key_offsets) {
  return {int(q.shape(1)),
          int(k.shape(1)),
          int(q.shape(2)),
          int(k.shape(0)),
          int(query_offsets.size() - 1),
          float(1 / std::sqrt(double(q.shape(2)))),
          cuda::pointer<const int32_t>(query_offsets),
          cuda::pointer<const int32_t>(key_offsets)};
}

/// delta[row] = dy . y, of one head of a query: a warp each.
template <class T>
__global__ void make_delta(float* delta, const T* dy, const T* y, int width, int64_t rows) {
  const int64_t row = (int64_t(blockIdx.x) * kDeltaThreads + threadIdx.x) / 32;
  if (row >= rows) return;
  float sum = 0;
  for (int c = int(threadIdx.x) % 32; c < width; c += 32) sum += float(dy[row * width + c]) * float(y[row * width + c]);
  sum = cuda::warp_sum(sum);
  if (threadIdx.x % 32 == 0) delta[row] = sum;
}

/// f.template operator()<N>() with the columns a thread of the general kernels makes.
template <class F>
void by_width(int64_t width, F&& f) {
  if (width <= 64) return f.template operator()<4>();
  f.template operator()<8>();
}

}  // namespace

void Attention::Forward::cuda(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
                              const Tensor& v, const Tensor& query_offsets, const Tensor& key_offsets) {
  const cuda::AttentionShape s = shape_of(q, k, query_offsets, key_offsets);
  cuda::visit(q.dtype(), [&]<class T>() {
    by_width(s.width, [&]<int N>() {
      cuda::launch({"attention", q, k}, cuda::general::forward<T, N>,
                   {cuda::query_slots(s, q.shape(0)), unsigned(s.heads), cuda::blocks(s.width, 16 * N)},
                   cuda::general::kThreads, 0, cuda::pointer<T>(y), cuda::pointer<float>(logsumexp),
                   cuda::pointer<const T>(q), cuda::pointer<const T>(k), cuda::pointer<const T>(v), s);
    });
  });
}

void Attention::Backward::cuda(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                               const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& query_offsets, const Tensor& key_offsets) {
  const cuda::AttentionShape s = shape_of(q, k, query_offsets, key_offsets);
  const Tensor delta({q.shape(0), q.shape(1)}, DType::f32, q.device());
  cuda::visit(q.dtype(), [&]<class T>() {
    cuda::launch({"attention backward", q}, make_delta<T>, cuda::blocks(delta.size() * 32, kDeltaThreads),
                 kDeltaThreads, 0, cuda::pointer<float>(delta), cuda::pointer<const T>(dy), cuda::pointer<const T>(y),
                 s.width, delta.size());
    by_width(s.width, [&]<int N>() {
      const unsigned pieces = cuda::blocks(s.width, 16 * N);
      cuda::launch({"attention backward", q, k}, cuda::general::backward_queries<T, N>,
                   {cuda::query_slots(s, q.shape(0)), unsigned(s.heads), pieces}, cuda::general::kThreads, 0,
                   cuda::pointer<T>(dq), cuda::pointer<const T>(dy), cuda::pointer<const float>(logsumexp),
                   cuda::pointer<const float>(delta), cuda::pointer<const T>(q), cuda::pointer<const T>(k),
                   cuda::pointer<const T>(v), s);
      cuda::launch({"attention backward", q, k}, cuda::general::backward_keys<T, N>,
                   {cuda::key_slots(s), unsigned(s.key_heads), pieces}, cuda::general::kThreads, 0,
                   cuda::pointer<T>(dk), cuda::pointer<T>(dv), cuda::pointer<const T>(dy),
                   cuda::pointer<const float>(logsumexp), cuda::pointer<const float>(delta), cuda::pointer<const T>(q),
                   cuda::pointer<const T>(k), cuda::pointer<const T>(v), s);
    });
  });
}

}  // namespace agon
