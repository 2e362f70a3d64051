#include "moe/weights.h"

#include <algorithm>

#include "core/cuda/reduce.cuh"
#include "moe/cuda/segments.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

__device__ int64_t thread_of_grid() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

/// A pair a thread; what is past the last one becomes 0.
__global__ void gather(float* values, const float* scores, const int32_t* expert, const int32_t* token_offsets,
                       int64_t tokens, int64_t experts, int64_t n) {
  const int64_t i = thread_of_grid();
  if (i >= n) return;
  const bool used = i < token_offsets[tokens];
  values[i] = used ? scores[cuda::segment_of(token_offsets, tokens, i) * experts + expert[i]] : 0;
}

/// A score a thread.
__global__ void gather_backward(float* dscores, const float* dvalues, const int32_t* expert,
                                const int32_t* token_offsets, int64_t experts, int64_t size) {
  const int64_t at = thread_of_grid();
  if (at >= size) return;
  const int64_t t = at / experts, e = at % experts;
  float sum = 0;
  for (int32_t i = token_offsets[t]; i < token_offsets[t + 1]; ++i)
    if (expert[i] == e) sum += dvalues[i];
  dscores[at] = sum;
}

__global__ void replace(float* scores, const float* values, const int32_t* expert, const int32_t* token_offsets,
                        int64_t tokens, int64_t experts, int64_t n) {
  const int64_t i = thread_of_grid();
  if (i >= n || i >= token_offsets[tokens]) return;
  scores[cuda::segment_of(token_offsets, tokens, i) * experts + expert[i]] = values ? values[i] : 0;
}

/// A list of n entries in segments, a warp a segment. Threads are at least as many as entries: those behind the last
/// segment are set to 0 besides.
struct Segments {
  const int32_t* offsets;
  int64_t segments, n;

  /// The segment of this warp; false where there is none.
  __device__ bool mine(int64_t& segment, int32_t& begin, int32_t& end) const {
    segment = thread_of_grid() / 32;
    if (segment >= segments) return false;
    begin = offsets[segment];
    end = offsets[segment + 1];
    return true;
  }
  __device__ void zero_rest(float* y) const {
    const int64_t i = thread_of_grid();
    if (i < n && i >= offsets[segments]) y[i] = 0;
  }
};
Segments segments_of(const Tensor& list, const Tensor& offsets) {
  return {cuda::pointer<const int32_t>(offsets), offsets.size() - 1, list.size()};
}
unsigned blocks_for(const Segments& s) { return cuda::blocks(std::max(s.segments * 32, s.n), kThreads); }

__device__ int lane() { return int(threadIdx.x) % 32; }

__device__ float segment_dot(const float* a, const float* b, int32_t begin, int32_t end) {
  float sum = 0;
  for (int32_t i = begin + lane(); i < end; i += 32) sum += a[i] * b[i];
  return cuda::warp_sum(sum);
}

__global__ void shares_forward(float* y, float* sums, const float* x, Segments list, float guard) {
  list.zero_rest(y);
  int64_t t;
  int32_t begin, end;
  if (!list.mine(t, begin, end)) return;
  float sum = 0;
  for (int32_t i = begin + lane(); i < end; i += 32) sum += x[i];
  sum = cuda::warp_sum(sum) + guard;
  for (int32_t i = begin + lane(); i < end; i += 32) y[i] = x[i] / sum;
  if (lane() == 0) sums[t] = sum;
}

__global__ void shares_backward(float* dx, const float* dy, const float* y, const float* sums, Segments list) {
  list.zero_rest(dx);
  int64_t t;
  int32_t begin, end;
  if (!list.mine(t, begin, end)) return;
  const float mean = segment_dot(y, dy, begin, end);
  for (int32_t i = begin + lane(); i < end; i += 32) dx[i] = (dy[i] - mean) / sums[t];
}

__global__ void softmax_forward(float* y, const float* x, Segments list) {
  list.zero_rest(y);
  int64_t t;
  int32_t begin, end;
  if (!list.mine(t, begin, end) || begin == end) return;
  float most = x[begin], sum = 0;
  for (int32_t i = begin + lane(); i < end; i += 32) most = cuda::Larger()(most, x[i]);
  most = cuda::warp_max(most);
  for (int32_t i = begin + lane(); i < end; i += 32) sum += y[i] = std::exp(x[i] - most);
  sum = cuda::warp_sum(sum);
  for (int32_t i = begin + lane(); i < end; i += 32) y[i] /= sum;
}

__global__ void softmax_backward(float* dx, const float* dy, const float* y, Segments list) {
  list.zero_rest(dx);
  int64_t t;
  int32_t begin, end;
  if (!list.mine(t, begin, end)) return;
  const float mean = segment_dot(y, dy, begin, end);
  for (int32_t i = begin + lane(); i < end; i += 32) dx[i] = y[i] * (dy[i] - mean);
}

__global__ void keep(float* y, const float* x, const int32_t* pair, int64_t n) {
  const int64_t i = thread_of_grid();
  if (i < n) y[i] = pair[i] < 0 ? 0 : x[pair[i]];
}

__global__ void keep_backward(float* dx, const float* dy, const int32_t* pair, int64_t n) {
  const int64_t i = thread_of_grid();
  if (i < n && pair[i] >= 0) dx[pair[i]] = dy[i];
}

}  // namespace

void GatherScores::Forward::cuda(const Tensor& values, const Tensor& scores, const Tensor& expert,
                                 const Tensor& token_offsets) {
  cuda::launch({"gather_scores", scores, expert}, gather, cuda::blocks(values.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(values), cuda::pointer<const float>(scores), cuda::pointer<const int32_t>(expert),
               cuda::pointer<const int32_t>(token_offsets), scores.shape(0), scores.shape(1), values.size());
}

void GatherScores::Backward::cuda(const Tensor& dscores, const Tensor& dvalues, const Tensor& expert,
                                  const Tensor& token_offsets) {
  cuda::launch({"gather_scores backward", dscores, expert}, gather_backward, cuda::blocks(dscores.size(), kThreads),
               kThreads, 0, cuda::pointer<float>(dscores), cuda::pointer<const float>(dvalues),
               cuda::pointer<const int32_t>(expert), cuda::pointer<const int32_t>(token_offsets), dscores.shape(1),
               dscores.size());
}

void Shares::Forward::cuda(const Tensor& y, const Tensor& sums, const Tensor& x, const Tensor& offsets, double guard) {
  const Segments list = segments_of(x, offsets);
  cuda::launch({"shares", x, offsets}, shares_forward, blocks_for(list), kThreads, 0, cuda::pointer<float>(y),
               cuda::pointer<float>(sums), cuda::pointer<const float>(x), list, guard);
}

void Shares::Backward::cuda(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& sums,
                            const Tensor& offsets) {
  const Segments list = segments_of(y, offsets);
  cuda::launch({"shares backward", y, offsets}, shares_backward, blocks_for(list), kThreads, 0,
               cuda::pointer<float>(dx), cuda::pointer<const float>(dy), cuda::pointer<const float>(y),
               cuda::pointer<const float>(sums), list);
}

void SoftmaxSelected::Forward::cuda(const Tensor& y, const Tensor& x, const Tensor& offsets) {
  const Segments list = segments_of(x, offsets);
  cuda::launch({"softmax_selected", x, offsets}, softmax_forward, blocks_for(list), kThreads, 0,
               cuda::pointer<float>(y), cuda::pointer<const float>(x), list);
}

void SoftmaxSelected::Backward::cuda(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& offsets) {
  const Segments list = segments_of(y, offsets);
  cuda::launch({"softmax_selected backward", y, offsets}, softmax_backward, blocks_for(list), kThreads, 0,
               cuda::pointer<float>(dx), cuda::pointer<const float>(dy), cuda::pointer<const float>(y), list);
}

void ReplaceScores::cuda(const Tensor& scores, const Tensor& values, const Tensor& expert,
                         const Tensor& token_offsets) {
  cuda::launch({"with_values", scores, expert}, replace, cuda::blocks(expert.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(scores), cuda::pointer<const float>(values), cuda::pointer<const int32_t>(expert),
               cuda::pointer<const int32_t>(token_offsets), scores.shape(0), scores.shape(1), expert.size());
}

void KeptValues::Forward::cuda(const Tensor& y, const Tensor& x, const Tensor& pair) {
  cuda::launch({"kept_values", x}, keep, cuda::blocks(y.size(), kThreads), kThreads, 0, cuda::pointer<float>(y),
               cuda::pointer<const float>(x), cuda::pointer<const int32_t>(pair), y.size());
}

void KeptValues::Backward::cuda(const Tensor& dx, const Tensor& dy, const Tensor& pair) {
  dx.zero();
  cuda::launch({"kept_values backward", dx}, keep_backward, cuda::blocks(dx.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(dx), cuda::pointer<const float>(dy), cuda::pointer<const int32_t>(pair), dx.size());
}

}  // namespace agon
