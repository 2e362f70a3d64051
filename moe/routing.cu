#include "moe/routing.h"

#include <algorithm>

#include "core/cuda/scan.cuh"
#include "moe/cuda/segments.cuh"

namespace agon {

namespace {

constexpr int kChunk = 1024;  // pairs of a block

/// row_of_pair[i] becomes the number of pairs before i in its chunk that have its expert. counts[e, c], zero before,
/// becomes the number of e's pairs in chunk c: the last of them writes it.
__global__ void rank_in_chunk(int32_t* row_of_pair, int32_t* counts, const int32_t* expert,
                              const int32_t* token_offsets, int64_t tokens, int64_t chunks) {
  __shared__ int32_t of_chunk[kChunk];
  const int me = int(threadIdx.x);
  const int64_t i = int64_t(blockIdx.x) * kChunk + me;
  const int32_t e = i < token_offsets[tokens] ? expert[i] : -1;
  of_chunk[me] = e;
  __syncthreads();
  if (e < 0) return;
  int32_t before = 0;
  bool last = true;
  for (int j = 0; j < me; ++j) before += of_chunk[j] == e;
  for (int j = me + 1; j < kChunk && last; ++j) last = of_chunk[j] != e;
  row_of_pair[i] = before;
  if (last) counts[e * chunks + blockIdx.x] = before + 1;
}

/// The first row of each chunk's pairs of each expert, [experts, chunks] and the end, and that of each expert. One
/// block.
__global__ void first_rows(int32_t* starts, int32_t* offsets, const int32_t* counts, int64_t experts, int64_t chunks) {
  cuda::scan_counts(starts, counts, experts * chunks);
  __syncthreads();
  for (int64_t e = threadIdx.x; e <= experts; e += cuda::kScanThreads) offsets[e] = starts[e * chunks];
}

__global__ void place(int32_t* token_of_pair, int32_t* pair_of_row, int32_t* row_of_pair, const int32_t* starts,
                      const int32_t* expert, const int32_t* token_offsets, int64_t tokens, int64_t chunks, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kChunk + threadIdx.x;
  if (i >= n) return;
  if (i >= token_offsets[tokens]) {
    token_of_pair[i] = pair_of_row[i] = row_of_pair[i] = -1;
    return;
  }
  const int32_t row = starts[expert[i] * chunks + blockIdx.x] + row_of_pair[i];
  token_of_pair[i] = int32_t(cuda::segment_of(token_offsets, tokens, i));
  row_of_pair[i] = row;
  pair_of_row[row] = int32_t(i);
}

}  // namespace

void MakePlan::cuda(const Plan& plan, const Tensor& expert) {
  const int64_t n = expert.size(), tokens = plan.token_offsets.size() - 1, experts = plan.offsets.size() - 1;
  const unsigned blocks = cuda::blocks(n, kChunk);
  const int64_t chunks = std::max(1u, blocks);
  const Tensor counts({experts * chunks}, DType::i32, expert.device()),
      starts({experts * chunks + 1}, DType::i32, expert.device());
  counts.zero();
  const cuda::Label label("make_plan", expert, plan.token_offsets, plan.offsets);
  int32_t* const row_of_pair = cuda::pointer<int32_t>(plan.row_of_pair);
  const int32_t *const of_pair = cuda::pointer<const int32_t>(expert), *const token_offsets =
                                                                           cuda::pointer<const int32_t>(
                                                                               plan.token_offsets);
  cuda::launch(label, rank_in_chunk, blocks, kChunk, 0, row_of_pair, cuda::pointer<int32_t>(counts), of_pair,
               token_offsets, tokens, chunks);
  cuda::launch(label, first_rows, 1, cuda::kScanThreads, 0, cuda::pointer<int32_t>(starts),
               cuda::pointer<int32_t>(plan.offsets), cuda::pointer<const int32_t>(counts), experts, chunks);
  cuda::launch(label, place, blocks, kChunk, 0, cuda::pointer<int32_t>(plan.token_of_pair),
               cuda::pointer<int32_t>(plan.pair_of_row), row_of_pair, cuda::pointer<const int32_t>(starts), of_pair,
               token_offsets, tokens, chunks, n);
}

}  // namespace agon
