#include "moe/selection.h"

#include "core/copy.h"
#include "moe/cuda/offsets.cuh"
#include "moe/cuda/radix_select.cuh"

namespace agon {

namespace {

constexpr int kThreads = 128;

__device__ int64_t this_thread() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

/// A warp for each token; the scores of its groups are in shared memory.
__global__ void choice_scores(float* choice, const float* scores, const float* bias, int64_t tokens, int64_t experts,
                              PerToken rule) {
  const int64_t t = this_thread() / 32;
  const int lane = int(threadIdx.x) % 32;
  if (t >= tokens) return;
  const float* const in = scores + t * experts;
  float* const out = choice + t * experts;
  const auto value = [=](int64_t e) { return bias ? in[e] + bias[e] : in[e]; };
  if (rule.groups == 0) {
    for (int64_t e = lane; e < experts; e += 32) out[e] = value(e);
    return;
  }
  float* const group = cuda::dynamic_shared<float>() + threadIdx.x / 32 * rule.groups;
  const int64_t size = experts / rule.groups;
  for (int64_t g = lane; g < rule.groups; g += 32)
    group[g] = ChoiceScores::of_group<float>(size, rule.group_score, [=](int64_t i) { return value(g * size + i); });
  __syncwarp();
  for (int64_t e = lane; e < experts; e += 32) {
    const int64_t own = e / size;
    int64_t better = 0;
    for (int64_t g = 0; g < rule.groups; ++g) better += group[g] > group[own] || (group[g] == group[own] && g < own);
    out[e] = better < rule.groups_kept ? value(e) : -std::numeric_limits<float>::infinity();
  }
}

__global__ void steer_bias(float* bias, const double* chosen, int64_t experts, double rate) {
  const int64_t e = this_thread();
  if (e >= experts) return;
  double mean = 0;
  for (int64_t i = 0; i < experts; ++i) mean += chosen[i] / double(experts);
  const double sign = mean > chosen[e] ? 1 : mean < chosen[e] ? -1 : 0;
  bias[e] += float(rate * sign);
}

__global__ void count_first(int32_t* counts, const int32_t* offsets, int64_t tokens) {
  const int64_t t = this_thread();
  if (t < tokens) counts[t] = offsets[t] < offsets[t + 1];
}

__global__ void write_first(int32_t* first, const int32_t* to, const int32_t* expert, const int32_t* offsets,
                            int64_t tokens) {
  const int64_t t = this_thread();
  if (t < tokens && to[t] < to[t + 1]) first[to[t]] = expert[offsets[t]];
}

/// A block for each expert in each scope. Pairs compete in the order in which equals are kept.
__global__ void mark_dropped(uint8_t* dropped, const int32_t* expert, const float* scores, const int32_t* scopes,
                             uint32_t experts, uint32_t k, double factor, Drop rule) {
  const uint32_t s = blockIdx.x / experts, e = blockIdx.x % experts;
  const uint32_t tokens = uint32_t(scopes[s + 1] - scopes[s]), n = tokens * k;
  const int64_t first = int64_t(scopes[s]) * k;
  const double room = ceil(DropOverCapacity::room(factor, k, tokens, experts));
  const uint32_t wanted = room < double(n) ? uint32_t(room) : n;
  if (rule == Drop::position) {
    const auto pair = [=](uint32_t i) { return first + int64_t(i % tokens) * k + i / tokens; };
    cuda::take_largest(
        n, wanted, [=](uint32_t i) { return expert[pair(i)] == int32_t(e) ? 1u : 0u; },
        [=](uint32_t i, bool kept) { dropped[pair(i)] = !kept; });
  } else {
    cuda::take_largest(
        n, wanted,
        [=](uint32_t i) {
          return expert[first + i] == int32_t(e) ? cuda::ordered(scores[(first + i) / k * experts + e]) : 0u;
        },
        [=](uint32_t i, bool kept) { dropped[first + i] = !kept; });
  }
}

__global__ void count_kept(int32_t* counts, const uint8_t* dropped, int64_t tokens, int64_t k) {
  const int64_t t = this_thread();
  if (t >= tokens) return;
  int32_t n = 0;
  for (int64_t i = t * k; i < (t + 1) * k; ++i) n += !dropped[i];
  counts[t] = n;
}

__global__ void write_kept(int32_t* to, int32_t* pair, const int32_t* offsets, const int32_t* expert,
                           const uint8_t* dropped, int64_t tokens, int64_t k) {
  const int64_t t = this_thread();
  if (t >= tokens) return;
  int32_t n = offsets[t];
  for (int64_t i = t * k; i < (t + 1) * k; ++i) {
    if (dropped[i]) continue;
    to[n] = expert[i];
    pair[n++] = int32_t(i);
  }
}

}  // namespace

void ChoiceScores::cuda(const Tensor& choice, const Tensor& scores, const Tensor& bias, const PerToken& rule) {
  cuda::launch({"select_per_token", scores}, choice_scores, cuda::blocks(scores.shape(0) * 32, kThreads), kThreads,
               size_t(kThreads / 32 * rule.groups) * sizeof(float), cuda::pointer<float>(choice),
               cuda::pointer<const float>(scores), cuda::pointer<const float>(bias), scores.shape(0), scores.shape(1),
               rule);
}

void Steer::cuda(const Tensor& bias, const Tensor& chosen, double rate) {
  cuda::launch({"steer", bias, chosen}, steer_bias, cuda::blocks(bias.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(bias), cuda::pointer<const double>(chosen), bias.size(), rate);
}

void FirstChoices::cuda(const Selection& first, const Tensor& expert, const Tensor& token_offsets) {
  const int64_t T = first.expert.size();
  const cuda::Label label("first_choices", expert, token_offsets);
  const auto* const offsets = cuda::pointer<const int32_t>(token_offsets);
  const Tensor counts({T}, DType::i32, expert.device());
  fill(first.expert, -1);
  cuda::launch(label, count_first, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(counts), offsets, T);
  cuda::launch_offsets(label, first.token_offsets, counts);
  cuda::launch(label, write_first, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(first.expert),
               cuda::pointer<const int32_t>(first.token_offsets), cuda::pointer<const int32_t>(expert), offsets, T);
}

void DropOverCapacity::cuda(const Kept& kept, const Selection& chosen, const Tensor& scores,
                            const Tensor& scope_offsets, int64_t k, double factor, Drop rule) {
  const int64_t T = scores.shape(0), E = scores.shape(1), scopes = scope_offsets.size() - 1;
  const cuda::Label label("drop_over_capacity", chosen.expert, scores, scope_offsets);
  const auto* const expert = cuda::pointer<const int32_t>(chosen.expert);
  const Tensor dropped(chosen.expert.shape(), DType::u8, scores.device()), counts({T}, DType::i32, scores.device());
  dropped.zero();
  fill(kept.selection.expert, -1);
  fill(kept.pair, -1);
  cuda::launch(label, mark_dropped, unsigned(scopes * E), cuda::threads_to_select(T * k, scopes), 0,
               cuda::pointer<uint8_t>(dropped), expert, cuda::pointer<const float>(scores),
               cuda::pointer<const int32_t>(scope_offsets), uint32_t(E), uint32_t(k), factor, rule);
  cuda::launch(label, count_kept, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(counts),
               cuda::pointer<const uint8_t>(dropped), T, k);
  cuda::launch_offsets(label, kept.selection.token_offsets, counts);
  cuda::launch(label, write_kept, cuda::blocks(T, kThreads), kThreads, 0, cuda::pointer<int32_t>(kept.selection.expert),
               cuda::pointer<int32_t>(kept.pair), cuda::pointer<const int32_t>(kept.selection.token_offsets), expert,
               cuda::pointer<const uint8_t>(dropped), T, k);
}

}  // namespace agon
