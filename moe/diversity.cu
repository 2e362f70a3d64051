#include "moe/diversity.h"

#include <cmath>

#include "moe/cuda/ordered_sum.cuh"
#include "moe/cuda/scope_of.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// inverse[i] = 1 / ‖row of pair i‖. A warp per pair.
template <class T>
__global__ void invert_norms(float* inverse, const T* rows, const int32_t* row_of_pair, int64_t N, int64_t D) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (i >= N || row_of_pair[i] < 0) return;
  const T* const o = rows + row_of_pair[i] * D;
  float squares = 0;
  for (int64_t d = lane; d < D; d += 32) squares += float(o[d]) * float(o[d]);
  const float norm = std::sqrt(cuda::warp_sum(squares));
  if (lane == 0) inverse[i] = 1 / (norm > 1e-12f ? norm : 1e-12f);
}

/// What the mean cosine of a token of each scope counts: T_g / (T C_g), C_g the tokens with at least two rows. A block
/// per scope.
__global__ void weigh_scopes(double* weight, const int32_t* token_offsets, const int32_t* scope_offsets,
                             int64_t tokens) {
  const int32_t begin = scope_offsets[blockIdx.x], end = scope_offsets[blockIdx.x + 1];
  int own = 0;
  for (int64_t t = begin + int64_t(threadIdx.x); t < end; t += kThreads)
    own += token_offsets[t + 1] - token_offsets[t] >= 2;
  const int counted = cuda::block_sum(own);
  if (threadIdx.x == 0) weight[blockIdx.x] = double(end - begin) / double(tokens) / double(counted > 1 ? counted : 1);
}

template <class T>
struct Case {
  const T* rows;
  const float* inverse;
  const int32_t *row_of_pair, *token_offsets, *scope_offsets;
  const double* weight;
  int64_t scopes, D;

  __device__ const T* row(int64_t pair) const { return rows + row_of_pair[pair] * D; }
  /// What the sum of the cosines of the n rows of token t over ordered pairs is multiplied by.
  __device__ double factor(int64_t t, int64_t n) const {
    return weight[cuda::scope_of(scope_offsets, scopes, t)] / double(n * (n - 1));
  }
};

template <class T>
struct CosinesOfToken {
  Case<T> in;

  __device__ void operator()(int64_t t, int lane, double* sums) const {
    const int64_t begin = in.token_offsets[t], end = in.token_offsets[t + 1];
    if (end - begin < 2) return;
    double cosines = 0;
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = i + 1; j < end; ++j) {
        const T *const a = in.row(i), *const b = in.row(j);
        float dot = 0;
        for (int64_t d = lane; d < in.D; d += 32) dot += float(a[d]) * in.inverse[i] * (float(b[d]) * in.inverse[j]);
        cosines += 2 * double(cuda::warp_sum(dot));
      }
    if (lane == 0) sums[0] += in.factor(t, end - begin) * cosines;
  }
};

/// drow = 2 dy factor (G - u <u, G>) / ‖o‖, u the unit row, G the sum of the token's other ones. A warp per pair.
template <class T>
__global__ void backward(T* drows, const float* dy, Case<T> in, const int32_t* token_of_pair, int64_t N) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (i >= N || token_of_pair[i] < 0) return;
  const int64_t t = token_of_pair[i], begin = in.token_offsets[t], end = in.token_offsets[t + 1];
  if (end - begin < 2) return;
  const float inverse = in.inverse[i], each = float(2 * double(*dy) * in.factor(t, end - begin));
  const T* const o = in.row(i);
  const auto others = [&](int64_t d) {
    float sum = 0;
    for (int64_t j = begin; j < end; ++j)
      if (j != i) sum += float(in.row(j)[d]) * in.inverse[j];
    return sum;
  };
  float along = 0;
  for (int64_t d = lane; d < in.D; d += 32) along += float(o[d]) * inverse * others(d);
  along = cuda::warp_sum(along);
  T* const to = drows + in.row_of_pair[i] * in.D;
  for (int64_t d = lane; d < in.D; d += 32) to[d] = T(each * (others(d) - float(o[d]) * inverse * along) * inverse);
}

/// Calls f with a Case; what it points to lives as long as the call.
template <class T, class F>
void with_case(const Tensor& rows, const Plan& plan, const Tensor& scope_offsets, F&& f) {
  const int64_t N = plan.row_of_pair.size(), D = rows.shape(1), S = scope_offsets.size() - 1;
  const Tensor inverse({N}, DType::f32, rows.device()), weight({S}, DType::f64, rows.device());
  cuda::launch({"norms for diversity", rows}, invert_norms<T>, cuda::blocks(N * 32, kThreads), kThreads, 0,
               cuda::pointer<float>(inverse), cuda::pointer<const T>(rows),
               cuda::pointer<const int32_t>(plan.row_of_pair), N, D);
  cuda::launch({"weights for diversity", scope_offsets}, weigh_scopes, unsigned(S), kThreads, 0,
               cuda::pointer<double>(weight), cuda::pointer<const int32_t>(plan.token_offsets),
               cuda::pointer<const int32_t>(scope_offsets), plan.token_offsets.size() - 1);
  f(Case<T>{cuda::pointer<const T>(rows), cuda::pointer<const float>(inverse),
            cuda::pointer<const int32_t>(plan.row_of_pair), cuda::pointer<const int32_t>(plan.token_offsets),
            cuda::pointer<const int32_t>(scope_offsets), cuda::pointer<const double>(weight), S, D});
}

}  // namespace

void Diversity::Forward::cuda(const Tensor& loss, const Tensor& rows, const Plan& plan, const Tensor& scope_offsets) {
  cuda::visit(rows.dtype(), [&]<class T>() {
    with_case<T>(rows, plan, scope_offsets, [&](const Case<T>& in) {
      cuda::ordered_sum({"diversity", rows}, rows.device(), plan.token_offsets.size() - 1, CosinesOfToken<T>{in},
                        cuda::StoreScaled{cuda::pointer<float>(loss), 1});
    });
  });
}

void Diversity::Backward::cuda(const Tensor& drows, const Tensor& dy, const Tensor& rows, const Plan& plan,
                               const Tensor& scope_offsets) {
  drows.zero();
  cuda::visit(rows.dtype(), [&]<class T>() {
    with_case<T>(rows, plan, scope_offsets, [&](const Case<T>& in) {
      const int64_t N = plan.row_of_pair.size();
      cuda::launch({"diversity backward", rows}, backward<T>, cuda::blocks(N * 32, kThreads), kThreads, 0,
                   cuda::pointer<T>(drows), cuda::pointer<const float>(dy), in,
                   cuda::pointer<const int32_t>(plan.token_of_pair), N);
    });
  });
}

}  // namespace agon
