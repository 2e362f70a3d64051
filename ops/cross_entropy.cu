#include "ops/cross_entropy.h"

#include <cmath>
#include <limits>

#include "ops/cpu/exp.h"
#include "ops/cuda/rows.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

template <class Row, class T>
__global__ void forward(float* per_token, T* gradient, const T* logits, const int32_t* target, float scale,
                        int64_t classes, int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const T* const row = logits + r.row * classes;
  const int64_t label = target[r.row];
  if (label < 0) {
    if (r.rank == 0) per_token[r.row] = 0;
    if (gradient)
      for (int64_t v = r.rank; v < classes; v += Row::kThreads) gradient[r.row * classes + v] = T(0.f);
    return;
  }
  const float picked = label < classes ? float(row[label]) : std::numeric_limits<float>::quiet_NaN();
  const float top = cuda::row_max(r, classes, [=](int64_t v) { return float(row[v]); });
  const float sum = cuda::row_sum(r, classes, [=](int64_t v) { return cpu::exp(float(row[v]) - top); });
  if (r.rank == 0) per_token[r.row] = top - picked + std::log(sum);
  if (!gradient) return;
  r.barrier();  // the gradient may take the place of the logits
  const float inverse = 1 / sum;
  for (int64_t v = r.rank; v < classes; v += Row::kThreads)
    gradient[r.row * classes + v] = T((cpu::exp(float(row[v]) - top) * inverse - float(v == label)) * scale);
}

/// One block.
__global__ void mean_loss(float* loss, const float* per_token, double denominator, int64_t n) {
  double sum = 0;
  for (int64_t t = threadIdx.x; t < n; t += blockDim.x) sum += double(per_token[t]);
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) loss[0] = float(sum / denominator);
}

template <class T>
__global__ void scale(T* gradient, const float* dloss, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const float by = dloss[0];
  if (i < n && by != 1) gradient[i] = T(float(gradient[i]) * by);
}

}  // namespace

void CrossEntropyForward::cuda(const CrossEntropy& result, const Tensor& gradient, const Tensor& logits,
                               const Tensor& target, double denominator) {
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  cuda::visit(logits.dtype(), [&]<class T>() {
    cuda::by_row_width(classes, [&]<class Row>() {
      cuda::launch_rows<Row>({"cross_entropy", logits, target}, forward<Row, T>, rows,
                             cuda::pointer<float>(result.per_token), cuda::pointer<T>(gradient),
                             cuda::pointer<const T>(logits), cuda::pointer<const int32_t>(target),
                             float(1 / denominator), classes, rows);
    });
  });
}

void MeanLoss::cuda(const Tensor& loss, const Tensor& per_token, double denominator) {
  cuda::launch({"mean of losses", per_token}, mean_loss, 1, 1024, 0, cuda::pointer<float>(loss),
               cuda::pointer<const float>(per_token), denominator, per_token.size());
}

void ScaleGradient::cuda(const Tensor& gradient, const Tensor& dloss) {
  cuda::visit(gradient.dtype(), [&]<class T>() {
    cuda::launch({"scaling of a gradient", gradient}, scale<T>, cuda::blocks(gradient.size(), kThreads), kThreads, 0,
                 cuda::pointer<T>(gradient), cuda::pointer<const float>(dloss), gradient.size());
  });
}

}  // namespace agon
