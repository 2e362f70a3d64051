#include "moe/expert_ffn.h"

#include "core/cuda/reduce.cuh"
#include "moe/cuda/segments.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// <a, b>; a is multiplied by w on the way.
template <class T>
__device__ float dot_and_scale(T* a, const T* b, int64_t n, float w) {
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < n; i += 32) {
    const float v = float(a[i]);
    if (b) sum += v * float(b[i]);
    a[i] = T(v * w);
  }
  return sum;
}

/// A warp per row.
template <class T>
__global__ void weigh(float* dweight, T* dhidden, T* dy, const T* hidden, const float* weight, const T* down_bias,
                      const int32_t* pair_of_row, const int32_t* offsets, int64_t experts, int64_t hidden_width,
                      int64_t width) {
  const int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (row >= offsets[experts]) return;
  const int32_t pair = pair_of_row[row];
  const float w = weight[pair];
  const T* const bias = down_bias ? down_bias + cuda::segment_of(offsets, experts, row) * width : nullptr;
  const float inner = dot_and_scale(dhidden + row * hidden_width, hidden + row * hidden_width, hidden_width, w),
              outer = dot_and_scale(dy + row * width, bias, width, w);
  const float sum = cuda::warp_sum(inner + outer);
  if (threadIdx.x % 32 == 0) dweight[pair] = sum;
}

}  // namespace

void ExpertFfn::Forward::cuda(const Tensor& y, const Operands& operands) { forward_in_steps(y, operands); }

void ExpertFfn::Backward::cuda(Gradients& g, const Tensor& dy, const Operands& operands) {
  backward_in_steps(g, dy, operands);
}

void ExpertFfn::Weigh::cuda(const Tensor& dweight, const Tensor& dhidden, const Tensor& dy, const Tensor& hidden,
                            const Tensor& weight, const Tensor& down_bias, const Plan& plan) {
  dweight.zero();
  cuda::visit(dy.dtype(), [&]<class T>() {
    cuda::launch({"expert_ffn backward", dy, hidden, plan.offsets}, weigh<T>, cuda::blocks(dy.shape(0) * 32, kThreads),
                 kThreads, 0, cuda::pointer<float>(dweight), cuda::pointer<T>(dhidden), cuda::pointer<T>(dy),
                 cuda::pointer<const T>(hidden), cuda::pointer<const float>(weight), cuda::pointer<const T>(down_bias),
                 cuda::pointer<const int32_t>(plan.pair_of_row), cuda::pointer<const int32_t>(plan.offsets),
                 plan.offsets.size() - 1, hidden.shape(1), dy.shape(1));
  });
}

}  // namespace agon
