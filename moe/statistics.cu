#include "moe/statistics.h"

#include <cmath>
#include <limits>

#include "moe/cuda/ordered_sum.cuh"

namespace agon {

namespace {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

/// What describe() adds up over tokens.
enum Sum { kEntropies, kGaps, kTokensWithGap, kSums };

struct FiguresOfRow {
  const float* probabilities;
  const int32_t* chosen_offsets;
  int64_t E;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    const float* const p = probabilities + t * E;
    for (int64_t e = lane; e < E; e += 32) sums[kEntropies] -= p[e] > 0 ? double(p[e] * std::log(p[e])) : 0;
    const int32_t k = chosen_offsets[t + 1] - chosen_offsets[t];
    if (k == 0 || k == E) return;
    if (lane == 0) sums[kTokensWithGap] += 1;
    for (int64_t e = lane; e < E; e += 32) {
      int32_t before = 0;  // experts that come before e in the order of preference
      for (int64_t other = 0; other < E; ++other) before += p[other] > p[e] || (p[other] == p[e] && other < e);
      if (before == k - 1) sums[kGaps] += double(p[e]);
      if (before == k) sums[kGaps] -= double(p[e]);
    }
  }
};

struct Inputs {
  const double *load, *chosen, *of_piece;
  int64_t pieces;
  const int32_t* token_offsets;
  int64_t T, E;
};

/// For one block: those of a load, and what was dropped. Returns the number of pairs.
__device__ double figures_of_load(double* values, const Inputs& in) {
  double own = 0, before = 0;
  for (int64_t e = threadIdx.x; e < in.E; e += cuda::kSumThreads) {
    own += in.load[e];
    before += in.chosen[e];
  }
  const double pairs = cuda::block_sum(own), chosen = cuda::block_sum(before);
  double entropy = 0, squares = 0, largest = 0, dead = 0;
  for (int64_t e = threadIdx.x; e < in.E; e += cuda::kSumThreads) {
    const double n = in.load[e];
    if (n > 0) entropy -= n / pairs * std::log(n / pairs);
    squares += n * n;
    largest = n > largest ? n : largest;
    dead += n == 0;
  }
  entropy = cuda::block_sum(entropy);
  squares = cuda::block_sum(squares);
  largest = cuda::block_reduce(largest, 0.0, cuda::Larger());
  dead = cuda::block_sum(dead);
  if (threadIdx.x != 0) return pairs;
  const double experts = double(in.E);
  const bool any = pairs > 0;
  values[Describe::kLoadEntropy] = !any ? 0 : in.E > 1 ? entropy / std::log(experts) : 1;
  values[Describe::kLoadMax] = any ? largest * experts / pairs : 0;
  values[Describe::kDead] = dead;
  values[Describe::kFairness] = any ? pairs * pairs / (experts * squares) : 0;
  values[Describe::kLoadVariation] = any ? experts * squares / (pairs * pairs) - 1 : 0;
  values[Describe::kDropped] = chosen > 0 ? 1 - pairs / chosen : 0;
  return pairs;
}

/// One block.
__global__ void describe_all(double* values, Inputs in) {
  int* const tokens_with = cuda::dynamic_shared<int>();  // [E + 1]
  const double pairs = figures_of_load(values, in), tokens = double(in.T);
  double sums[kSums];
  cuda::add_pieces(sums, in.of_piece, in.pieces);
  if (threadIdx.x == 0) {
    values[Describe::kExpertsPerToken] = in.T > 0 ? pairs / tokens : kAbsent;
    values[Describe::kEntropy] = in.T > 0 ? sums[kEntropies] / tokens : kAbsent;
    values[Describe::kMargin] = sums[kTokensWithGap] > 0 ? sums[kGaps] / sums[kTokensWithGap] : kAbsent;
  }
  for (int64_t n = threadIdx.x; n <= in.E; n += cuda::kSumThreads) tokens_with[n] = 0;
  __syncthreads();
  for (int64_t t = threadIdx.x; t < in.T; t += cuda::kSumThreads)
    atomicAdd(&tokens_with[in.token_offsets[t + 1] - in.token_offsets[t]], 1);
  __syncthreads();
  for (int64_t n = threadIdx.x; n <= in.E; n += cuda::kSumThreads)
    values[Describe::kTokensWith + n] = tokens_with[n] > 0 ? double(tokens_with[n]) / tokens : kAbsent;
}

template <class V>
__global__ void append(double* to, const double* from, int64_t n, const V* value, double divisor) {
  const int64_t i = int64_t(blockIdx.x) * cuda::kSumThreads + threadIdx.x;
  if (i <= n) to[i] = i < n ? from[i] : double(*value) / divisor;
}

}  // namespace

void Describe::cuda(const Tensor& values, const Tensor& load, const Tensor& chosen, const Tensor& probabilities,
                    const Tensor& token_offsets, const Tensor& chosen_offsets) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const cuda::Label label("describe", probabilities);
  const Tensor sums = cuda::piece_sums<kSums>(
      label, values.device(), T,
      FiguresOfRow{cuda::pointer<const float>(probabilities), cuda::pointer<const int32_t>(chosen_offsets), E});
  cuda::launch(
      label, describe_all, 1, cuda::kSumThreads, size_t(E + 1) * sizeof(int), cuda::pointer<double>(values),
      Inputs{cuda::pointer<const double>(load), cuda::pointer<const double>(chosen), cuda::pointer<const double>(sums),
             sums.shape(0), cuda::pointer<const int32_t>(token_offsets), T, E});
}

void AddFigure::cuda(const Tensor& to, const Tensor& from, const Tensor& value, double divisor) {
  const auto append_as = [&]<class V>() {
    cuda::launch({"add_figure", value}, append<V>, cuda::blocks(to.size(), cuda::kSumThreads), cuda::kSumThreads, 0,
                 cuda::pointer<double>(to), cuda::pointer<const double>(from), from.size(),
                 cuda::pointer<const V>(value), divisor);
  };
  value.dtype() == DType::f64 ? append_as.operator()<double>() : append_as.operator()<float>();
}

}  // namespace agon
