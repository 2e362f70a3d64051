#include "moe/losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moe/cuda/ordered_sum.cuh"
#include "moe/cuda/scope_of.cuh"
#include "ops/cpu/exp.h"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32, kRowLanes = 8;  // of a block that adds rows up
constexpr int64_t kRowsOfChunk = 128;

struct BalanceOfRow {
  const float* probabilities;
  const double* share;
  const int32_t* scope_offsets;
  int64_t S, E;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    const float* const p = probabilities + t * E;
    const double* const f = share + cuda::scope_of(scope_offsets, S, t) * E;
    for (int64_t e = lane; e < E; e += 32) sums[0] += f[e] * double(p[e]);
  }
};

struct SquareOfRow {
  const float* logits;
  float* logsumexp;
  int64_t E;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    const float* const z = logits + t * E;
    float largest = -INFINITY;
    for (int64_t e = lane; e < E; e += 32) largest = z[e] > largest ? z[e] : largest;
    largest = cuda::warp_max(largest);
    float total = 0;
    for (int64_t e = lane; e < E; e += 32) total += cpu::exp(z[e] - largest);
    const float value = largest + std::log(cuda::warp_sum(total));
    if (lane != 0) return;
    logsumexp[t] = value;
    sums[0] += double(value) * double(value);
  }
};

/// out[t, e] = dy · factor · table[scope of t, e].
__global__ void spread(float* out, const float* dy, double factor, const double* table, const int32_t* scope_offsets,
                       int64_t S, int64_t E, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = float(double(*dy) * factor * table[cuda::scope_of(scope_offsets, S, i / E) * E + i % E]);
}

__global__ void z_backward(float* dz, const float* dy, const float* logits, const float* logsumexp, int64_t T,
                           int64_t E) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= T * E) return;
  const float lse = logsumexp[i / E];
  dz[i] = float(double(*dy) * 2 * double(lse) * double(cpu::exp(logits[i] - lse)) / double(T));
}

/// sums [S, gridDim.y, E]: those of the columns of every chunk of a scope (blockIdx.z), 32 columns a block.
__global__ void add_chunks(double* sums, const float* probabilities, const int32_t* scope_offsets, int64_t E) {
  __shared__ double of_lane[kRowLanes][kColumns];
  const int64_t e = int64_t(blockIdx.x) * kColumns + threadIdx.x, s = blockIdx.z;
  const int64_t first = scope_offsets[s], rows = scope_offsets[s + 1] - first;
  const int64_t begin = first + rows * blockIdx.y / gridDim.y, end = first + rows * (blockIdx.y + 1) / gridDim.y;
  double sum = 0;
  if (e < E)
    for (int64_t t = begin + threadIdx.y; t < end; t += kRowLanes) sum += double(probabilities[t * E + e]);
  of_lane[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || e >= E) return;
  for (int lane = 1; lane < kRowLanes; ++lane) sum += of_lane[lane][threadIdx.x];
  sums[(s * gridDim.y + blockIdx.y) * E + e] = sum;
}

/// A block per scope: its mean probabilities, and what it adds to the loss.
__global__ void entropy_of_scope(double* mean, double* term, const double* sums, int64_t chunks,
                                 const int32_t* scope_offsets, int64_t T, int64_t E) {
  const int64_t s = blockIdx.x, rows = scope_offsets[s + 1] - scope_offsets[s];
  double own = 0;
  for (int64_t e = threadIdx.x; e < E; e += kThreads) {
    double m = 0;
    for (int64_t c = 0; c < chunks; ++c) m += sums[(s * chunks + c) * E + e];
    m /= double(rows > 1 ? rows : 1);
    mean[s * E + e] = m;
    own += m > 0 ? m * std::log(m) : 0;
  }
  const double sum = cuda::block_sum(own);
  if (threadIdx.x == 0) term[s] = sum * double(rows) / double(T > 1 ? T : 1);
}

__global__ void entropy_slopes(double* slope, const double* mean, int64_t n) {
  constexpr double kSmallest = std::numeric_limits<double>::min();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) slope[i] = std::log(mean[i] > kSmallest ? mean[i] : kSmallest) + 1;
}

void launch_spread(const cuda::Label& label, const Tensor& dp, const Tensor& dy, double factor, const Tensor& table,
                   const Tensor& scope_offsets) {
  cuda::launch(label, spread, cuda::blocks(dp.size(), kThreads), kThreads, 0, cuda::pointer<float>(dp),
               cuda::pointer<const float>(dy), factor, cuda::pointer<const double>(table),
               cuda::pointer<const int32_t>(scope_offsets), table.shape(0), table.shape(1), dp.size());
}

}  // namespace

void LoadBalance::Forward::cuda(const Tensor& loss, const Tensor& probabilities, const Tensor& share,
                                const Tensor& scope_offsets) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  cuda::ordered_sum({"load_balance", probabilities, share}, loss.device(), T,
                    BalanceOfRow{cuda::pointer<const float>(probabilities), cuda::pointer<const double>(share),
                                 cuda::pointer<const int32_t>(scope_offsets), share.shape(0), E},
                    cuda::StoreScaled{cuda::pointer<float>(loss), T > 0 ? double(E) / double(T) : 0});
}

void LoadBalance::Backward::cuda(const Tensor& dp, const Tensor& dy, const Tensor& share, const Tensor& scope_offsets) {
  const int64_t T = dp.shape(0), E = dp.shape(1);
  launch_spread({"load_balance backward", dp, share}, dp, dy, double(E) / double(T > 1 ? T : 1), share, scope_offsets);
}

void RouterZ::Forward::cuda(const Tensor& loss, const Tensor& logsumexp, const Tensor& logits) {
  const int64_t T = logits.shape(0), E = logits.shape(1);
  cuda::ordered_sum({"router_z", logits}, loss.device(), T,
                    SquareOfRow{cuda::pointer<const float>(logits), cuda::pointer<float>(logsumexp), E},
                    cuda::StoreScaled{cuda::pointer<float>(loss), 1 / double(T > 1 ? T : 1)});
}

void RouterZ::Backward::cuda(const Tensor& dz, const Tensor& dy, const Tensor& logits, const Tensor& logsumexp) {
  cuda::launch({"router_z backward", logits}, z_backward, cuda::blocks(dz.size(), kThreads), kThreads, 0,
               cuda::pointer<float>(dz), cuda::pointer<const float>(dy), cuda::pointer<const float>(logits),
               cuda::pointer<const float>(logsumexp), logits.shape(0), logits.shape(1));
}

void NegativeEntropy::Forward::cuda(const Tensor& loss, const Tensor& mean, const Tensor& probabilities,
                                    const Tensor& scope_offsets) {
  const int64_t T = probabilities.shape(0), S = mean.shape(0), E = mean.shape(1);
  const cuda::Label label("negative_entropy", probabilities, scope_offsets);
  const int64_t chunks = std::clamp<int64_t>(T / (std::max<int64_t>(S, 1) * kRowsOfChunk), 1, 256);
  const Tensor sums({S, chunks, E}, DType::f64, loss.device()), term({S}, DType::f64, loss.device());
  cuda::launch(label, add_chunks, dim3(cuda::blocks(E, kColumns), unsigned(chunks), unsigned(S)),
               dim3(kColumns, kRowLanes), 0, cuda::pointer<double>(sums), cuda::pointer<const float>(probabilities),
               cuda::pointer<const int32_t>(scope_offsets), E);
  cuda::launch(label, entropy_of_scope, unsigned(S), kThreads, 0, cuda::pointer<double>(mean),
               cuda::pointer<double>(term), cuda::pointer<const double>(sums), chunks,
               cuda::pointer<const int32_t>(scope_offsets), T, E);
  cuda::launch(label, cuda::finish_sums<1, cuda::StoreScaled>, 1, cuda::kSumThreads, 0,
               cuda::pointer<const double>(term), S, cuda::StoreScaled{cuda::pointer<float>(loss), 1});
}

void NegativeEntropy::Backward::cuda(const Tensor& dp, const Tensor& dy, const Tensor& mean,
                                     const Tensor& scope_offsets) {
  const Tensor slope(mean.shape(), DType::f64, mean.device());
  const cuda::Label label("negative_entropy backward", dp, mean);
  cuda::launch(label, entropy_slopes, cuda::blocks(mean.size(), kThreads), kThreads, 0, cuda::pointer<double>(slope),
               cuda::pointer<const double>(mean), mean.size());
  launch_spread(label, dp, dy, 1 / double(dp.shape(0) > 1 ? dp.shape(0) : 1), slope, scope_offsets);
}

}  // namespace agon
