#include "moe/counts.h"

#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int kCountingThreads = 1024;

/// A block per scope. Whole numbers: the order of the additions does not matter.
__global__ void count_pairs(double* counts, const int32_t* expert, const int32_t* token_offsets,
                            const int32_t* scope_offsets, int64_t E) {
  int* const count = cuda::dynamic_shared<int>();
  for (int64_t e = threadIdx.x; e < E; e += kCountingThreads) count[e] = 0;
  __syncthreads();
  const int32_t end = token_offsets[scope_offsets[blockIdx.x + 1]];
  for (int64_t i = token_offsets[scope_offsets[blockIdx.x]] + int64_t(threadIdx.x); i < end; i += kCountingThreads)
    atomicAdd(&count[expert[i]], 1);
  __syncthreads();
  for (int64_t e = threadIdx.x; e < E; e += kCountingThreads) counts[blockIdx.x * E + e] = double(count[e]);
}

/// A block per scope.
__global__ void divide_by_sum(double* share, const double* counts, int64_t E) {
  const double* const from = counts + blockIdx.x * E;
  double own = 0;
  for (int64_t e = threadIdx.x; e < E; e += kThreads) own += from[e];
  const double total = cuda::block_sum(own);
  for (int64_t e = threadIdx.x; e < E; e += kThreads) share[blockIdx.x * E + e] = total > 0 ? from[e] / total : 0;
}

__global__ void add(double* to, const double* from, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] += from[i];
}

}  // namespace

void CountExperts::cuda(const Tensor& counts, const Tensor& expert, const Tensor& token_offsets,
                        const Tensor& scope_offsets) {
  const int64_t S = counts.shape(0), E = counts.shape(1);
  cuda::launch({"count_experts", expert, token_offsets, scope_offsets}, count_pairs, unsigned(S), kCountingThreads,
               size_t(E) * sizeof(int), cuda::pointer<double>(counts), cuda::pointer<const int32_t>(expert),
               cuda::pointer<const int32_t>(token_offsets), cuda::pointer<const int32_t>(scope_offsets), E);
}

void SharesOf::cuda(const Tensor& share, const Tensor& counts) {
  cuda::launch({"shares of experts", counts}, divide_by_sum, unsigned(counts.shape(0)), kThreads, 0,
               cuda::pointer<double>(share), cuda::pointer<const double>(counts), counts.shape(1));
}

void AddCounts::cuda(const Tensor& counts, const Tensor& more) {
  cuda::launch({"add_counts", counts, more}, add, cuda::blocks(counts.size(), kThreads), kThreads, 0,
               cuda::pointer<double>(counts), cuda::pointer<const double>(more), counts.size());
}

}  // namespace agon
