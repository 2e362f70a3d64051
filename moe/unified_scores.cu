#include "moe/unified_scores.h"

#include "core/cuda/reduce.cuh"
#include "moe/cuda/segments.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32, kRows = 16;  // of a block: experts side by side, tokens one below the other

/// What a thread's column gets from all its rows, joined in order.
template <class F>
__device__ float join_rows(float v, const F& join) {
  __shared__ float parts[kRows][kColumns];
  const int column = int(threadIdx.x) % kColumns, row = int(threadIdx.x) / kColumns;
  __syncthreads();  // whoever read the last parts has
  parts[row][column] = v;
  __syncthreads();
  v = parts[0][column];
  for (int r = 1; r < kRows; ++r) v = join(v, parts[r][column]);
  return v;
}

/// A block for each kColumns experts of each scope. Calls f(where the scope's tokens are in the list, how many there
/// are, the thread's expert, its first token).
template <class F>
__device__ void each_column(const int32_t* token, const int32_t* offsets, int64_t experts, const F& f) {
  const int64_t across = (experts + kColumns - 1) / kColumns, s = blockIdx.x / across;
  const int64_t e = blockIdx.x % across * kColumns + threadIdx.x % kColumns;
  f(token + offsets[s], e < experts ? offsets[s + 1] - offsets[s] : 0, e, int32_t(threadIdx.x / kColumns));
}

__global__ void softmax_forward(float* y, const float* z, const int32_t* token, const int32_t* offsets,
                                int64_t experts) {
  each_column(token, offsets, experts, [=](const int32_t* tokens, int32_t n, int64_t e, int32_t first) {
    float most = -std::numeric_limits<float>::infinity(), sum = 0;
    for (int32_t i = first; i < n; i += kRows) most = cuda::Larger()(most, z[tokens[i] * experts + e]);
    most = join_rows(most, cuda::Larger());
    for (int32_t i = first; i < n; i += kRows) {
      const float v = expf(z[tokens[i] * experts + e] - most);
      y[tokens[i] * experts + e] = v;
      sum += v;
    }
    sum = join_rows(sum, cuda::Plus());
    for (int32_t i = first; i < n; i += kRows) y[tokens[i] * experts + e] /= sum;
  });
}

__global__ void softmax_backward(float* dz, const float* dy, const float* y, const int32_t* token,
                                 const int32_t* offsets, int64_t experts) {
  each_column(token, offsets, experts, [=](const int32_t* tokens, int32_t n, int64_t e, int32_t first) {
    float mean = 0;
    for (int32_t i = first; i < n; i += kRows) mean += y[tokens[i] * experts + e] * dy[tokens[i] * experts + e];
    mean = join_rows(mean, cuda::Plus());
    for (int32_t i = first; i < n; i += kRows) {
      const int64_t at = tokens[i] * experts + e;
      dz[at] = y[at] * (dy[at] - mean);
    }
  });
}

__global__ void tokens_over_experts(float* share, const int32_t* token, const int32_t* offsets, int64_t scopes,
                                    int64_t tokens, double experts) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= tokens) return;
  const int64_t s = cuda::segment_of(offsets, scopes, i);
  share[token[i]] = float(double(offsets[s + 1] - offsets[s]) / experts);
}

unsigned blocks_for(const Tensor& z, const Scopes& scopes) {
  return cuda::blocks(z.shape(1), kColumns) * unsigned(scopes.count());
}

}  // namespace

void SoftmaxOverTokens::Forward::cuda(const Tensor& y, const Tensor& z, const Scopes& scopes) {
  cuda::launch({"softmax_over_tokens", z, scopes.offsets}, softmax_forward, blocks_for(z, scopes), kColumns * kRows, 0,
               cuda::pointer<float>(y), cuda::pointer<const float>(z), cuda::pointer<const int32_t>(scopes.token),
               cuda::pointer<const int32_t>(scopes.offsets), z.shape(1));
}

void SoftmaxOverTokens::Backward::cuda(const Tensor& dz, const Tensor& dy, const Tensor& y, const Scopes& scopes) {
  cuda::launch({"softmax_over_tokens backward", y, scopes.offsets}, softmax_backward, blocks_for(y, scopes),
               kColumns * kRows, 0, cuda::pointer<float>(dz), cuda::pointer<const float>(dy),
               cuda::pointer<const float>(y), cuda::pointer<const int32_t>(scopes.token),
               cuda::pointer<const int32_t>(scopes.offsets), y.shape(1));
}

void TokensOverExperts::cuda(const Tensor& share, const Scopes& scopes, int64_t experts) {
  cuda::launch({"unified_scores", share, scopes.offsets}, tokens_over_experts, cuda::blocks(share.size(), kThreads),
               kThreads, 0, cuda::pointer<float>(share), cuda::pointer<const int32_t>(scopes.token),
               cuda::pointer<const int32_t>(scopes.offsets), scopes.count(), share.size(), double(experts));
}

}  // namespace agon
