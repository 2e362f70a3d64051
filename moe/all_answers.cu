#include "moe/all_answers.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

__global__ void rows_of_one(int32_t* offsets, int64_t expert, int32_t n, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) offsets[i] = i > expert ? n : 0;
}

}  // namespace

void LocalAnswerScores::cuda(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                             int64_t chunk_bytes) {
  in_steps(scores, x, experts, score, chunk_bytes);
}

void RowsOfOne::cuda(const Tensor& offsets, int64_t expert, int64_t n) {
  cuda::launch({"offsets of one expert", offsets}, rows_of_one, cuda::blocks(offsets.size(), kThreads), kThreads, 0,
               cuda::pointer<int32_t>(offsets), expert, n, offsets.size());
}

}  // namespace agon
