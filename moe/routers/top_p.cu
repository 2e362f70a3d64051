#include "moe/routers/top_p.h"

#include "core/copy.h"
#include "core/cuda/reduce.cuh"
#include "moe/cuda/offsets.cuh"

namespace agon {

namespace {

constexpr int kThreads = 128;

__global__ void count_top_p(int32_t* counts, const float* probabilities, const int32_t* best, double p, int64_t tokens,
                            int64_t experts, int32_t most) {
  const int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= tokens) return;
  double reached = 0;
  int32_t n = 0;
  for (; n < most && reached < p; ++n) reached += double(probabilities[t * experts + best[t * most + n]]);
  counts[t] = n;
}

__global__ void write_top_p(int32_t* expert, const int32_t* offsets, const int32_t* best, int64_t tokens,
                            int32_t most) {
  const int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= tokens) return;
  for (int32_t i = 0; i < offsets[t + 1] - offsets[t]; ++i) expert[offsets[t] + i] = best[t * most + i];
}

/// The logsumexp of a row, for its warp.
__device__ float row_logsumexp(const float* row, int64_t experts) {
  float most = -std::numeric_limits<float>::infinity(), sum = 0;
  for (int64_t e = threadIdx.x % 32; e < experts; e += 32) most = cuda::Larger()(most, row[e]);
  most = cuda::warp_max(most);
  for (int64_t e = threadIdx.x % 32; e < experts; e += 32) sum += expf(row[e] - most);
  return most + logf(cuda::warp_sum(sum));
}

/// A warp for each token.
__global__ void entropy_forward(float* h, const float* z, int64_t tokens, int64_t experts) {
  const int64_t t = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (t >= tokens) return;
  const float* const row = z + t * experts;
  const float lse = row_logsumexp(row, experts);
  float sum = 0;
  for (int64_t e = threadIdx.x % 32; e < experts; e += 32) sum += expf(row[e] - lse) * (lse - row[e]);
  sum = cuda::warp_sum(sum);
  if (threadIdx.x % 32 == 0) h[t] = sum;
}

__global__ void entropy_backward(float* dz, const float* dh, const float* h, const float* z, int64_t tokens,
                                 int64_t experts) {
  const int64_t t = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (t >= tokens) return;
  const float* const row = z + t * experts;
  const float lse = row_logsumexp(row, experts);
  for (int64_t e = threadIdx.x % 32; e < experts; e += 32)
    dz[t * experts + e] = dh[t] * expf(row[e] - lse) * (lse - row[e] - h[t]);
}

}  // namespace

void SelectTopP::cuda(const Selection& selection, const Tensor& probabilities, const Tensor& best, double p) {
  const int64_t T = best.shape(0);
  const auto most = int32_t(best.shape(1));
  const cuda::Label label("select_top_p", probabilities);
  const auto* const ranked = cuda::pointer<const int32_t>(best);
  const Tensor counts({T}, DType::i32, best.device());
  fill(selection.expert, -1);
  cuda::launch(label, count_top_p, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(counts),
               cuda::pointer<const float>(probabilities), ranked, p, T, probabilities.shape(1), most);
  cuda::launch_offsets(label, selection.token_offsets, counts);
  cuda::launch(label, write_top_p, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(selection.expert),
               cuda::pointer<const int32_t>(selection.token_offsets), ranked, T, most);
}

void TokenEntropy::Forward::cuda(const Tensor& h, const Tensor& z) {
  cuda::launch({"token_entropy", z}, entropy_forward, cuda::blocks(z.shape(0) * 32, kThreads), kThreads, 0,
               cuda::pointer<float>(h), cuda::pointer<const float>(z), z.shape(0), z.shape(1));
}

void TokenEntropy::Backward::cuda(const Tensor& dz, const Tensor& dh, const Tensor& h, const Tensor& z) {
  cuda::launch({"token_entropy backward", z}, entropy_backward, cuda::blocks(z.shape(0) * 32, kThreads), kThreads, 0,
               cuda::pointer<float>(dz), cuda::pointer<const float>(dh), cuda::pointer<const float>(h),
               cuda::pointer<const float>(z), z.shape(0), z.shape(1));
}

}  // namespace agon
