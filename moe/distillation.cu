#include "moe/distillation.h"

#include "moe/cuda/ordered_sum.cuh"
#include "moe/cuda/scope_of.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

struct Case {
  const float *q, *P;
  const int32_t *expert, *token_offsets, *scope_offsets;
  int64_t T, E, scopes;

  /// What a chosen pair of token t counts in the mean over pairs.
  __device__ double weight(int64_t t) const {
    const int64_t g = cuda::scope_of(scope_offsets, scopes, t);
    const int32_t begin = scope_offsets[g], end = scope_offsets[g + 1];
    const int32_t pairs = token_offsets[end] - token_offsets[begin];
    return double(end - begin) / double(T) / double(pairs > 1 ? pairs : 1);
  }
  __device__ double gap(int64_t i) const { return double(q[i]) - double(P[i]); }
};

struct SquaresOfRow {
  Case in;
  double theta;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    const double size = double(in.T * in.E), more = theta * in.weight(t);
    for (int64_t i = t * in.E + lane; i < (t + 1) * in.E; i += 32) sums[0] += in.gap(i) * in.gap(i) / size;
    for (int64_t i = in.token_offsets[t] + lane; i < in.token_offsets[t + 1]; i += 32) {
      const double gap = in.gap(t * in.E + in.expert[i]);
      sums[0] += more * gap * gap;
    }
  }
};

/// A warp per token.
__global__ void backward(float* dq, const float* dy, Case in, double theta) {
  const int64_t t = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (t >= in.T) return;
  const double slope = 2 * double(*dy), each = slope / double(in.T * in.E), more = slope * theta * in.weight(t);
  for (int64_t i = t * in.E + lane; i < (t + 1) * in.E; i += 32) dq[i] = float(each * in.gap(i));
  __syncwarp();  // the chosen ones are written again, by other lanes
  for (int64_t i = in.token_offsets[t] + lane; i < in.token_offsets[t + 1]; i += 32) {
    const int64_t at = t * in.E + in.expert[i];
    dq[at] = float((each + more) * in.gap(at));
  }
}

Case case_of(const Tensor& q, const Tensor& P, const Tensor& expert, const Tensor& token_offsets,
             const Tensor& scope_offsets) {
  return {cuda::pointer<const float>(q),
          cuda::pointer<const float>(P),
          cuda::pointer<const int32_t>(expert),
          cuda::pointer<const int32_t>(token_offsets),
          cuda::pointer<const int32_t>(scope_offsets),
          q.shape(0),
          q.shape(1),
          scope_offsets.size() - 1};
}

}  // namespace

void Distillation::Forward::cuda(const Tensor& loss, const Tensor& q, const Tensor& P, const Tensor& expert,
                                 const Tensor& token_offsets, const Tensor& scope_offsets, double theta) {
  cuda::ordered_sum({"distillation", q, expert}, loss.device(), q.shape(0),
                    SquaresOfRow{case_of(q, P, expert, token_offsets, scope_offsets), theta},
                    cuda::StoreScaled{cuda::pointer<float>(loss), 1});
}

void Distillation::Backward::cuda(const Tensor& dq, const Tensor& dy, const Tensor& q, const Tensor& P,
                                  const Tensor& expert, const Tensor& token_offsets, const Tensor& scope_offsets,
                                  double theta) {
  cuda::launch({"distillation backward", q, expert}, backward, cuda::blocks(q.shape(0) * 32, kThreads), kThreads, 0,
               cuda::pointer<float>(dq), cuda::pointer<const float>(dy),
               case_of(q, P, expert, token_offsets, scope_offsets), theta);
}

}  // namespace agon
