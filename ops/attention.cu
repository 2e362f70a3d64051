#include "ops/attention.h"

#include <cmath>

#include "ops/cuda/attention_general.cuh"
#include "ops/cuda/attention_tensor_core.cuh"

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

/// The kernels for tensors of q's dtype and width: forward, backward_queries and backward_keys, and how to launch them.
template <class T, int N>
struct General {
  using Element = T;
  static constexpr auto* forward = cuda::general::forward<T, N>;
  static constexpr auto* backward_queries = cuda::general::backward_queries<T, N>;
  static constexpr auto* backward_keys = cuda::general::backward_keys<T, N>;
  static constexpr int threads = cuda::general::kThreads, columns = 16 * N;
  static constexpr size_t forward_shared = 0, backward_queries_shared = 0, backward_keys_shared = 0;
};

template <int D>
struct TensorCore {
  using Element = bf16;
  static constexpr auto* forward = cuda::tensor_core::forward<D>;
  static constexpr auto* backward_queries = cuda::tensor_core::backward_queries<D>;
  static constexpr auto* backward_keys = cuda::tensor_core::backward_keys<D>;
  static constexpr int threads = cuda::tensor_core::kThreads, columns = D;
  static constexpr size_t forward_shared = cuda::tensor_core::kForwardShared<D>,
                          backward_queries_shared = cuda::tensor_core::kBackwardQueriesShared<D>,
                          backward_keys_shared = cuda::tensor_core::kBackwardKeysShared<D>;
};

/// f.template operator()<Kernels>()
template <class F>
void choose(const Tensor& q, F&& f) {
  const int64_t width = q.shape(2);
  cuda::visit(q.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>) {
      if (width == 64) return f.template operator()<TensorCore<64>>();
      if (width == 128) return f.template operator()<TensorCore<128>>();
    }
    if (width <= 64) return f.template operator()<General<T, 4>>();
    f.template operator()<General<T, 8>>();
  });
}

}  // namespace

void Attention::Forward::cuda(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k,
                              const Tensor& v, const Tensor& query_offsets, const Tensor& key_offsets) {
  const cuda::AttentionShape s = shape_of(q, k, query_offsets, key_offsets);
  choose(q, [&]<class Kernels>() {
    using T = typename Kernels::Element;
    cuda::launch({"attention", q, k}, Kernels::forward,
                 {cuda::query_slots(s, q.shape(0)), unsigned(s.heads), cuda::blocks(s.width, Kernels::columns)},
                 Kernels::threads, Kernels::forward_shared, cuda::pointer<T>(y), cuda::pointer<float>(logsumexp),
                 cuda::pointer<const T>(q), cuda::pointer<const T>(k), cuda::pointer<const T>(v), s);
  });
}

void Attention::Backward::cuda(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                               const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& query_offsets, const Tensor& key_offsets) {
  const cuda::AttentionShape s = shape_of(q, k, query_offsets, key_offsets);
  const Tensor delta({q.shape(0), q.shape(1)}, DType::f32, q.device());
  choose(q, [&]<class Kernels>() {
    using T = typename Kernels::Element;
    const cuda::Label label("attention backward", q, k);
    cuda::launch(label, make_delta<T>, cuda::blocks(delta.size() * 32, kDeltaThreads), kDeltaThreads, 0,
                 cuda::pointer<float>(delta), cuda::pointer<const T>(dy), cuda::pointer<const T>(y), s.width,
                 delta.size());
    const unsigned pieces = cuda::blocks(s.width, Kernels::columns);
    cuda::launch(label, Kernels::backward_queries, {cuda::query_slots(s, q.shape(0)), unsigned(s.heads), pieces},
                 Kernels::threads, Kernels::backward_queries_shared, cuda::pointer<T>(dq), cuda::pointer<const T>(dy),
                 cuda::pointer<const float>(logsumexp), cuda::pointer<const float>(delta), cuda::pointer<const T>(q),
                 cuda::pointer<const T>(k), cuda::pointer<const T>(v), s);
    cuda::launch(label, Kernels::backward_keys, {cuda::key_slots(s), unsigned(s.key_heads), pieces}, Kernels::threads,
                 Kernels::backward_keys_shared, cuda::pointer<T>(dk), cuda::pointer<T>(dv), cuda::pointer<const T>(dy),
                 cuda::pointer<const float>(logsumexp), cuda::pointer<const float>(delta), cuda::pointer<const T>(q),
                 cuda::pointer<const T>(k), cuda::pointer<const T>(v), s);
  });
}

}  // namespace agon
