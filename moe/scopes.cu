#include "moe/cuda/offsets.cuh"
#include "moe/cuda/segments.cuh"
#include "moe/scopes.h"

namespace agon {

namespace {

using cuda::kListThreads;

__device__ int64_t this_thread() { return int64_t(blockIdx.x) * kListThreads + threadIdx.x; }

__global__ void group_offsets(int32_t* offsets, const int32_t* sequences, int64_t count, int64_t in_group,
                              int64_t groups) {
  const int64_t g = this_thread();
  if (g <= groups) offsets[g] = sequences[g == groups ? count : g * in_group];
}

__global__ void group_starts(int32_t* start, const int32_t* offsets, int64_t in_group, int64_t scopes) {
  const int64_t s = this_thread();
  if (s < scopes) start[s] = offsets[s / in_group * in_group];
}

__global__ void longest_of_groups(int32_t* longest, const int32_t* sequences, int64_t count, int64_t in_group,
                                  int64_t groups) {
  const int64_t g = this_thread();
  if (g >= groups) return;
  int32_t most = 0;
  for (int64_t b = g * in_group; b < count && b < (g + 1) * in_group; ++b) {
    const int32_t length = sequences[b + 1] - sequences[b];
    most = length > most ? length : most;
  }
  longest[g] = most;
}

/// Where the tokens of a group at `position` begin in the list of all.
__device__ int32_t start_of_step(const int32_t* sequences, int64_t first, int64_t last, int32_t position) {
  int32_t before = sequences[first];
  for (int64_t b = first; b < last; ++b) {
    const int32_t length = sequences[b + 1] - sequences[b];
    before += length < position ? length : position;
  }
  return before;
}

__global__ void time_step_tokens(int32_t* token, const int32_t* sequences, int64_t count, int64_t in_group,
                                 int64_t tokens) {
  const int64_t t = this_thread();
  if (t >= tokens) return;
  const int64_t own = cuda::segment_of(sequences, count, t), first = own / in_group * in_group;
  const int64_t last = first + in_group < count ? first + in_group : count;
  const int32_t position = int32_t(t) - sequences[own];
  int32_t at = start_of_step(sequences, first, last, position);
  for (int64_t b = first; b < own; ++b) at += sequences[b + 1] - sequences[b] > position;
  token[at] = int32_t(t);
}

__global__ void time_step_offsets(int32_t* offsets, int32_t* start, const int32_t* first_step, const int32_t* sequences,
                                  int64_t count, int64_t in_group, int64_t groups, int64_t scopes) {
  const int64_t s = this_thread();
  if (s == scopes) offsets[s] = sequences[count];
  if (s >= scopes) return;
  const int64_t g = cuda::segment_of(first_step, groups, s), first = g * in_group;
  const int64_t last = first + in_group < count ? first + in_group : count;
  start[s] = sequences[first];
  offsets[s] = start_of_step(sequences, first, last, int32_t(s) - first_step[g]);
}

__global__ void budgets(int32_t* budget, const int32_t* offsets, const int32_t* start, double per_token,
                        int64_t scopes) {
  const int64_t s = this_thread();
  if (s < scopes)
    budget[s] = SpreadBudget::allowed(per_token, offsets[s + 1] - start[s]) -
                SpreadBudget::allowed(per_token, offsets[s] - start[s]);
}

unsigned blocks_for(int64_t n) { return cuda::blocks(n, kListThreads); }

}  // namespace

void GroupOffsets::cuda(const Tensor& offsets, const Tensor& sequences, int64_t in_group) {
  cuda::launch({"scope_offsets", offsets, sequences}, group_offsets, blocks_for(offsets.size()), kListThreads, 0,
               cuda::pointer<int32_t>(offsets), cuda::pointer<const int32_t>(sequences), sequences.size() - 1, in_group,
               offsets.size() - 1);
}

void GroupStarts::cuda(const Tensor& start, const Tensor& offsets, int64_t in_group) {
  cuda::launch({"make_scopes", start, offsets}, group_starts, blocks_for(start.size()), kListThreads, 0,
               cuda::pointer<int32_t>(start), cuda::pointer<const int32_t>(offsets), in_group, start.size());
}

void TimeSteps::cuda(const Scopes& scopes, const Tensor& sequences, int64_t in_group) {
  const int64_t count = sequences.size() - 1, groups = (count + in_group - 1) / in_group;
  const cuda::Label label("make_scopes", scopes.token, sequences);
  const auto* const sequence = cuda::pointer<const int32_t>(sequences);
  const Tensor longest({groups}, DType::i32, sequences.device()),
      first_step({groups + 1}, DType::i32, sequences.device());
  cuda::launch(label, longest_of_groups, blocks_for(groups), kListThreads, 0, cuda::pointer<int32_t>(longest), sequence,
               count, in_group, groups);
  cuda::launch_offsets(label, first_step, longest);
  cuda::launch(label, time_step_tokens, blocks_for(scopes.token.size()), kListThreads, 0,
               cuda::pointer<int32_t>(scopes.token), sequence, count, in_group, scopes.token.size());
  cuda::launch(label, time_step_offsets, blocks_for(scopes.count() + 1), kListThreads, 0,
               cuda::pointer<int32_t>(scopes.offsets), cuda::pointer<int32_t>(scopes.start),
               cuda::pointer<const int32_t>(first_step), sequence, count, in_group, groups, scopes.count());
}

void SpreadBudget::cuda(const Tensor& budget, const Scopes& scopes, double per_token) {
  cuda::launch({"spread_budget", budget}, budgets, blocks_for(budget.size()), kListThreads, 0,
               cuda::pointer<int32_t>(budget), cuda::pointer<const int32_t>(scopes.offsets),
               cuda::pointer<const int32_t>(scopes.start), per_token, scopes.count());
}

}  // namespace agon
