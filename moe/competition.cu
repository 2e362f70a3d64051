#include "moe/competition.h"

#include <cmath>

#include "moe/cuda/ordered_sum.cuh"

namespace agon {

namespace {

struct CommonPairs {
  const int32_t *expert, *token_offsets, *wanted, *wanted_offsets;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    for (int64_t i = token_offsets[t] + lane; i < token_offsets[t + 1]; i += 32)
      for (int32_t j = wanted_offsets[t]; j < wanted_offsets[t + 1]; ++j) sums[0] += wanted[j] == expert[i];
  }
};

struct StoreShare {
  double* share;
  const int32_t* pairs;
  __device__ void operator()(const double* total) const { *share = *pairs > 0 ? total[0] / double(*pairs) : 1; }
};

struct DivergenceOfRow {
  const float* P;
  int64_t E;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    for (int64_t i = t * E + lane; i < (t + 1) * E; i += 32)
      sums[0] += P[i] > 0 ? double(P[i]) * std::log(double(P[i]) * double(E)) : 0;
  }
};

struct StoreMean {
  double* mean;
  double rows;
  __device__ void operator()(const double* total) const { *mean = total[0] / rows; }
};

}  // namespace

void Agreement::cuda(const Tensor& figure, const Pairs& pairs, const Selection& others) {
  const int64_t T = pairs.token_offsets.size() - 1;
  const int32_t* const offsets = cuda::pointer<const int32_t>(pairs.token_offsets);
  cuda::ordered_sum(
      {"agreement", pairs.expert, others.expert}, figure.device(), T,
      CommonPairs{cuda::pointer<const int32_t>(pairs.expert), offsets, cuda::pointer<const int32_t>(others.expert),
                  cuda::pointer<const int32_t>(others.token_offsets)},
      StoreShare{cuda::pointer<double>(figure), offsets + T});
}

void DivergenceFromUniform::cuda(const Tensor& figure, const Tensor& P) {
  const int64_t T = P.shape(0);
  cuda::ordered_sum({"divergence from uniform", P}, figure.device(), T,
                    DivergenceOfRow{cuda::pointer<const float>(P), P.shape(1)},
                    StoreMean{cuda::pointer<double>(figure), double(T > 1 ? T : 1)});
}

}  // namespace agon
