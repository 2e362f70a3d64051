#include "ops/linear_cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu/exp.h"
#include "ops/cuda/cublas.h"
#include "ops/cuda/rows.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// The logits of some rows in one chunk of the vocabulary.
struct Chunk {
  const float* logits;
  int64_t stride, rows, first, classes;  // first: the chunk's first class of all
};
/// Of each row of the block, over the chunks so far: the largest logit, the sum of exp(logit - largest), the target's
/// logit.
struct Sums {
  float *maximum, *sum, *picked;
};

/// Takes one more chunk into the sums; after the last, per_token is known. Rows are those of the block.
template <class Row>
__global__ void take(Chunk c, Sums sums, const int32_t* target, float* per_token, bool last) {
  const Row r;
  if (r.row >= c.rows) return;
  const int64_t label = target[r.row] - c.first;
  if (target[r.row] < 0) {
    if (last && r.rank == 0) per_token[r.row] = 0;
    return;
  }
  const float* const row = c.logits + r.row * c.stride;
  const bool begins = c.first == 0;
  const float before = begins ? -std::numeric_limits<float>::infinity() : sums.maximum[r.row];
  const float top = cuda::Larger()(before, cuda::row_max(r, c.classes, [=](int64_t v) { return row[v]; }));
  const float part = cuda::row_sum(r, c.classes, [=](int64_t v) { return cpu::exp(row[v] - top); });
  if (r.rank != 0) return;
  float sum = begins ? 0.0f : sums.sum[r.row];
  if (sum > 0) sum *= cpu::exp(before - top);
  sum += part;
  float picked = begins ? std::numeric_limits<float>::quiet_NaN() : sums.picked[r.row];
  if (label >= 0 && label < c.classes) picked = row[label];
  sums.maximum[r.row] = top;
  sums.sum[r.row] = sum;
  sums.picked[r.row] = picked;
  if (last) per_token[r.row] = top - picked + std::log(sum);
}

/// The gradient in the logits of a chunk; it may take their place.
template <class Row, class G>
__global__ void gradient(G* to, Chunk c, Sums sums, const int32_t* target, float scale) {
  const Row r;
  if (r.row >= c.rows) return;
  const float* const row = c.logits + r.row * c.stride;
  G* const out = to + r.row * c.stride;
  const bool counts = target[r.row] >= 0;
  const int64_t label = target[r.row] - c.first;
  const float top = counts ? sums.maximum[r.row] : 0.0f, inverse = counts ? 1 / sums.sum[r.row] : 0.0f;
  for (int64_t v = r.rank; v < c.classes; v += Row::kThreads)
    out[v] = G(counts ? (cpu::exp(row[v] - top) * inverse - float(v == label)) * scale : 0.0f);
}

__global__ void round_all(bf16* to, const float* from, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = bf16(from[i]);
}

template <class T>
__global__ void add_scaled(T* to, bool add, const float* from, const float* dloss, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = T((add ? float(to[i]) : 0.0f) + from[i] * dloss[0]);
}

template <class Operand>
Operand from_row(Operand o, int64_t row) {
  using Bytes = std::conditional_t<std::is_same_v<Operand, cuda::GemmOutput>, char, const char>;
  o.data = static_cast<Bytes*>(o.data) + row * o.stride * size_of(o.dtype);
  return o;
}

/// T: of x and w, and so of the logits' gradient, which is multiplied with them.
template <class T>
void in_blocks(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x, const Tensor& w,
               const Tensor& target, double denominator, LinearCrossEntropyForward::Block most) {
  constexpr const char* op = "linear_cross_entropy";
  const int64_t tokens = x.shape(0), width = x.shape(1), classes = w.shape(0), chunk = std::min(most.classes, classes),
                chunks = (classes + chunk - 1) / chunk, rows_at_once = std::min(most.rows, tokens),
                stride = (chunk + 7) / 8 * 8;  // aligned whatever the vocabulary is
  const auto f32 = [&](Shape shape) { return Tensor(shape, DType::f32, x.device()); };
  const Tensor logits = f32({rows_at_once, stride}), maximum = f32({rows_at_once}), sum = f32({rows_at_once}),
               picked = f32({rows_at_once});
  const bool half = x.dtype() == DType::bf16;
  const Tensor dlogits = half && (dx || dw) ? Tensor(logits.shape(), DType::bf16, x.device()) : logits;
  // The chunks' contributions to dx are one sum only if none is rounded on the way.
  const bool rounds = dx && half && chunks > 1;
  const Tensor wide = rounds ? f32({rows_at_once, width}) : Tensor();
  const Sums sums = {cuda::pointer<float>(maximum), cuda::pointer<float>(sum), cuda::pointer<float>(picked)};
  const int32_t* const labels = cuda::pointer<const int32_t>(target);

  for (int64_t begin = 0; begin < tokens; begin += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, tokens - begin);
    const auto chunk_at = [&](int64_t i) {
      const int64_t first = i * chunk;
      return Chunk{cuda::pointer<const float>(logits), stride, rows, first, std::min(chunk, classes - first)};
    };
    const auto make_logits = [&](const Chunk& c) {
      cuda::gemm(op, rows, c.classes, width, from_row(cuda::operand(x), begin),
                 cuda::transposed(from_row(cuda::operand(w), c.first)), cuda::output(logits));
    };
    for (int64_t i = 0; i < chunks; ++i) {
      const Chunk c = chunk_at(i);
      make_logits(c);
      cuda::by_row_width(c.classes, [&]<class Row>() {
        cuda::launch_rows<Row>({op, x, w}, take<Row>, rows, c, sums, labels + begin,
                               cuda::pointer<float>(result.per_token) + begin, i + 1 == chunks);
      });
    }
    if (!dx && !dw) continue;
    // Backwards: the last chunk's logits are there.
    for (int64_t i = chunks - 1; i >= 0; --i) {
      const Chunk c = chunk_at(i);
      const bool first = i + 1 == chunks;
      if (!first) make_logits(c);
      cuda::by_row_width(c.classes, [&]<class Row>() {
        cuda::launch_rows<Row>({"linear_cross_entropy, gradient of logits", x, w}, gradient<Row, T>, rows,
                               cuda::pointer<T>(dlogits), c, sums, labels + begin, float(1 / denominator));
      });
      if (dx)
        cuda::gemm("linear_cross_entropy, gradient of x", rows, width, c.classes, cuda::operand(dlogits),
                   from_row(cuda::operand(w), c.first), rounds ? cuda::output(wide) : from_row(cuda::output(dx), begin),
                   !first);
      if (dw)
        cuda::gemm("linear_cross_entropy, gradient of w", c.classes, width, rows,
                   cuda::transposed(cuda::operand(dlogits)), from_row(cuda::operand(x), begin),
                   from_row(cuda::output(dw), c.first), begin > 0);
    }
    if (rounds)
      cuda::launch({op, dx}, round_all, cuda::blocks(rows * width, kThreads), kThreads, 0,
                   cuda::pointer<bf16>(dx) + begin * width, cuda::pointer<const float>(wide), rows * width);
  }
}

}  // namespace

void LinearCrossEntropyForward::cuda(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x,
                                     const Tensor& w, const Tensor& target, double denominator, Block most) {
  constexpr int64_t kLogits = int64_t(1) << 25, kMostClasses = int64_t(1) << 16, kTile = 128;
  if (most.classes == 0) most.classes = std::clamp<int64_t>(w.shape(0), 1, kMostClasses);
  if (most.rows == 0) most.rows = std::max(kTile, kLogits / most.classes / kTile * kTile);
  cuda::visit(x.dtype(), [&]<class T>() { in_blocks<T>(result, dx, dw, x, w, target, denominator, most); });
  if (dw && x.shape(0) == 0) dw.zero();
}

void AddScaled::cuda(const Tensor& dw, bool add, const Tensor& from, const Tensor& dloss) {
  cuda::visit(dw.dtype(), [&]<class T>() {
    cuda::launch({"linear_cross_entropy, gradient of w", dw}, add_scaled<T>, cuda::blocks(dw.size(), kThreads),
                 kThreads, 0, cuda::pointer<T>(dw), add, cuda::pointer<const float>(from),
                 cuda::pointer<const float>(dloss), dw.size());
  });
}

}  // namespace agon
