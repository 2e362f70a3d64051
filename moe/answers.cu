#include "moe/answers.h"

#include "core/cuda/launch.cuh"
#include "core/cuda/reduce.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

template <class T>
__device__ float sum_of(const T* row, int64_t width, AnswerScore score) {
  float sum = 0;
  for (int64_t d = threadIdx.x % 32; d < width; d += 32) sum += AnswerScores::term(float(row[d]), score);
  return cuda::warp_sum(sum);
}

/// A warp per row.
template <class T>
__global__ void forward(float* scores, const T* rows, AnswerScore score, int64_t width, int64_t n) {
  const int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (row >= n) return;
  const float sum = sum_of(rows + row * width, width, score);
  if (threadIdx.x % 32 == 0) scores[row] = AnswerScores::finish(sum, width, score);
}

/// A warp per row, which has read all it needs of others' elements before it writes its own.
template <class T>
__global__ void backward(T* drows, const float* dscores, const T* rows, AnswerScore score, int64_t width, int64_t n) {
  const int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (row >= n) return;
  const float sum = score == AnswerScore::l2_norm ? sum_of(rows + row * width, width, score) : 0;
  const float each = dscores[row] / AnswerScores::divisor(sum, width, score);
  for (int64_t d = row * width + threadIdx.x % 32; d < (row + 1) * width; d += 32)
    drows[d] = T(each * AnswerScores::slope(float(rows[d]), score));
}

}  // namespace

void AnswerScores::Forward::cuda(const Tensor& scores, const Tensor& rows, AnswerScore score) {
  cuda::visit(rows.dtype(), [&]<class T>() {
    cuda::launch({"answer_scores", rows}, forward<T>, cuda::blocks(rows.shape(0) * 32, kThreads), kThreads, 0,
                 cuda::pointer<float>(scores), cuda::pointer<const T>(rows), score, rows.shape(1), rows.shape(0));
  });
}

void AnswerScores::Backward::cuda(const Tensor& drows, const Tensor& dscores, const Tensor& rows, AnswerScore score) {
  cuda::visit(rows.dtype(), [&]<class T>() {
    cuda::launch({"answer_scores backward", rows}, backward<T>, cuda::blocks(rows.shape(0) * 32, kThreads), kThreads, 0,
                 cuda::pointer<T>(drows), cuda::pointer<const float>(dscores), cuda::pointer<const T>(rows), score,
                 rows.shape(1), rows.shape(0));
  });
}

}  // namespace agon
