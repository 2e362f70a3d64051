#include "moe/pool.h"

#include "core/copy.h"
#include "core/cuda/reduce.cuh"
#include "moe/cuda/offsets.cuh"
#include "moe/cuda/radix_select.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A block for each expert in each scope.
__global__ void mark_per_expert(uint8_t* chosen, const float* scores, const int32_t* token, const int32_t* offsets,
                                const int32_t* budget, uint32_t experts) {
  const uint32_t s = blockIdx.x / experts, e = blockIdx.x % experts;
  const int32_t* const mine = token + offsets[s];
  const auto at = [=](uint32_t i) { return int64_t(mine[i]) * experts + e; };
  cuda::take_largest(
      uint32_t(offsets[s + 1] - offsets[s]), uint32_t(budget[s]),
      [=](uint32_t i) { return cuda::ordered(scores[at(i)]); }, [=](uint32_t i, bool taken) { chosen[at(i)] = taken; });
}

/// A block for each scope.
__global__ void mark_global(uint8_t* chosen, const float* scores, const int32_t* token, const int32_t* offsets,
                            const int32_t* budget, uint32_t experts) {
  const uint32_t s = blockIdx.x;
  const int32_t* const mine = token + offsets[s];
  const auto at = [=](uint32_t i) { return int64_t(mine[i / experts]) * experts + i % experts; };
  cuda::take_largest(
      uint32_t(offsets[s + 1] - offsets[s]) * experts, uint32_t(budget[s]),
      [=](uint32_t i) { return cuda::ordered(scores[at(i)]); }, [=](uint32_t i, bool taken) { chosen[at(i)] = taken; });
}

__global__ void mark_reaching(uint8_t* chosen, const float* scores, const float* threshold, int64_t thresholds,
                              int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) chosen[i] = scores[i] >= threshold[i % thresholds];
}

/// A warp for each token.
__global__ void count_chosen(int32_t* counts, const uint8_t* chosen, int64_t tokens, int64_t experts) {
  const int64_t t = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (t >= tokens) return;
  int32_t n = 0;
  for (int64_t e = threadIdx.x % 32; e < experts; e += 32) n += chosen[t * experts + e];
  n = cuda::warp_sum(n);
  if (threadIdx.x % 32 == 0) counts[t] = n;
}

/// A warp for each token: a pair's place is the number of those before it.
__global__ void order_chosen(int32_t* expert, const int32_t* offsets, const uint8_t* chosen, const float* scores,
                             int64_t tokens, int32_t experts) {
  const int64_t t = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (t >= tokens) return;
  const uint8_t* const mine = chosen + t * experts;
  const float* const score = scores + t * experts;
  for (int32_t e = int32_t(threadIdx.x) % 32; e < experts; e += 32) {
    if (!mine[e]) continue;
    const uint32_t own = cuda::ordered(score[e]);
    int32_t place = offsets[t];
    for (int32_t other = 0; other < experts; ++other) {
      if (!mine[other]) continue;
      const uint32_t key = cuda::ordered(score[other]);
      place += key > own || (key == own && other < e);
    }
    expert[place] = e;
  }
}

}  // namespace

void MarkPerExpert::cuda(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget) {
  const int64_t choices = scopes.count() * scores.shape(1);
  cuda::launch({"select_per_expert", scores, scopes.offsets}, mark_per_expert, unsigned(choices),
               cuda::threads_to_select(scores.size(), choices), 0, cuda::pointer<uint8_t>(chosen),
               cuda::pointer<const float>(scores), cuda::pointer<const int32_t>(scopes.token),
               cuda::pointer<const int32_t>(scopes.offsets), cuda::pointer<const int32_t>(budget),
               uint32_t(scores.shape(1)));
}

void MarkGlobal::cuda(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget) {
  cuda::launch({"select_global", scores, scopes.offsets}, mark_global, unsigned(scopes.count()),
               cuda::threads_to_select(scores.size(), scopes.count()), 0, cuda::pointer<uint8_t>(chosen),
               cuda::pointer<const float>(scores), cuda::pointer<const int32_t>(scopes.token),
               cuda::pointer<const int32_t>(scopes.offsets), cuda::pointer<const int32_t>(budget),
               uint32_t(scores.shape(1)));
}

void MarkReaching::cuda(const Tensor& chosen, const Tensor& scores, const Tensor& threshold) {
  cuda::launch({"select_reaching", scores, threshold}, mark_reaching, cuda::blocks(scores.size(), kThreads), kThreads,
               0, cuda::pointer<uint8_t>(chosen), cuda::pointer<const float>(scores),
               cuda::pointer<const float>(threshold), threshold.size(), scores.size());
}

void ChosenPairs::Offsets::cuda(int64_t&, const Tensor& offsets, const Tensor& chosen) {
  const int64_t T = chosen.shape(0);
  const Tensor counts({T}, DType::i32, chosen.device());
  const cuda::Label label("pairs of tokens", chosen);
  cuda::launch(label, count_chosen, cuda::blocks(T * 32, kThreads), kThreads, 0, cuda::pointer<int32_t>(counts),
               cuda::pointer<const uint8_t>(chosen), T, chosen.shape(1));
  cuda::launch_offsets(label, offsets, counts);
}

void ChosenPairs::Experts::cuda(const Tensor& expert, const Tensor& offsets, const Tensor& chosen,
                                const Tensor& scores) {
  fill(expert, -1);
  cuda::launch({"pairs of tokens", chosen, scores}, order_chosen, cuda::blocks(scores.shape(0) * 32, kThreads),
               kThreads, 0, cuda::pointer<int32_t>(expert), cuda::pointer<const int32_t>(offsets),
               cuda::pointer<const uint8_t>(chosen), cuda::pointer<const float>(scores), scores.shape(0),
               int32_t(scores.shape(1)));
}

}  // namespace agon
