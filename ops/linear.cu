#include "ops/linear.h"

#include "ops/cuda/bias.cuh"
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/cublas.h"

namespace agon {

namespace {

// x of bf16 with w of f32, on tensor cores that multiply bf16: an f32 number is the sum of three bf16 numbers of 8 bits
// each, so products of terms, summed in f32, are the product of the numbers. The largest term comes first.

constexpr int kTerms = 3;

/// Term i of v.
__device__ bf16 bf16_term(float v, int i) {
  for (; i > 0; --i) v -= float(bf16(v));  // exact
  return bf16(v);
}

/// Which terms of a matrix are written, one copy of it after the other.
struct TermList {
  int count;
  int8_t at[6];
};
constexpr TermList kEachTerm = {3, {0, 1, 2}};
/// The pairs of terms of two numbers that count in f32, those above 2^-24 of the product, and smallest first: the first
/// number's and the second's.
constexpr TermList kLeftOfPairs = {6, {2, 1, 0, 1, 0, 0}}, kRightOfPairs = {6, {0, 1, 2, 0, 1, 0}};

constexpr int kSplitThreads = 256;

/// to[p * copy + i * stride + j] = term list.at[p] of from[i][j].
__global__ void split_terms(bf16* to, int64_t copy, int64_t stride, const float* from, int64_t columns, int64_t size,
                            TermList list) {
  const int64_t at = int64_t(blockIdx.x) * kSplitThreads + threadIdx.x;
  if (at >= size) return;
  const float v = from[at];
#pragma unroll
  for (int p = 0; p < 6; ++p)
    if (p < list.count) to[p * copy + at / columns * stride + at % columns] = bf16_term(v, list.at[p]);
}

void launch_split(const char* op, const Tensor& to, int64_t copy, int64_t stride, const Tensor& from,
                  const TermList& list) {
  cuda::launch({op, from}, split_terms, cuda::blocks(from.size(), kSplitThreads), kSplitThreads, 0,
               cuda::pointer<bf16>(to), copy, stride, cuda::pointer<const float>(from), from.shape(-1), from.size(),
               list);
}

/// Copies one below the other: from [R, C] f32 -> [copies * R, C] bf16.
Tensor stacked_terms(const char* op, const Tensor& from, const TermList& list) {
  const Tensor to({list.count * from.shape().rows(), from.shape(-1)}, DType::bf16, from.device());
  launch_split(op, to, from.size(), from.shape(-1), from, list);
  return to;
}

/// Copies side by side: from [R, C] f32 -> [R, copies * C] bf16.
Tensor terms_beside(const char* op, const Tensor& from, const TermList& list) {
  const Tensor to({from.shape().rows(), list.count * from.shape(-1)}, DType::bf16, from.device());
  launch_split(op, to, from.shape(-1), list.count * from.shape(-1), from, list);
  return to;
}

/// Rows [i * n, (i + 1) * n) of a matrix.
cuda::GemmOperand rows_of(const Tensor& t, int64_t i, int64_t n) {
  cuda::GemmOperand o = cuda::operand(t);
  o.data = static_cast<const char*>(o.data) + i * n * o.stride * size_of(o.dtype);
  return o;
}

}  // namespace

void Linear::Forward::cuda(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  constexpr const char* op = "linear";
  const int64_t rows = x.shape().rows(), out = w.shape(0), in = w.shape(1);
  const bool fused = bias && bias.dtype() == y.dtype();
  const void* const with = fused ? cuda::address_there(bias) : nullptr;
  if (x.dtype() == w.dtype()) {
    cuda::gemm(op, rows, out, in, cuda::operand(x), cuda::transposed(cuda::operand(w)), cuda::output(y), false, with);
  } else {
    const Tensor terms = stacked_terms(op, w, kEachTerm);
    for (int i = kTerms - 1; i >= 0; --i)  // the smallest first
      cuda::gemm(op, rows, out, in, cuda::operand(x), cuda::transposed(rows_of(terms, i, out)), cuda::output(y),
                 i < kTerms - 1, i == 0 ? with : nullptr);
  }
  if (bias && !fused) cuda::add_bias(op, rows, out, cuda::output(y), bias);
}

void Linear::Input::cuda(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  constexpr const char* op = "linear, gradient of x";
  const int64_t rows = dx.shape().rows(), out = w.shape(0), in = w.shape(1);
  if (dx.dtype() == w.dtype())
    return cuda::gemm(op, rows, in, out, cuda::operand(dy), cuda::operand(w), cuda::output(dx));
  // One product, so that dx is rounded once: the depth is all pairs of terms.
  const Tensor left = terms_beside(op, dy, kLeftOfPairs), right = stacked_terms(op, w, kRightOfPairs);
  cuda::gemm(op, rows, in, right.shape(0), cuda::operand(left), cuda::operand(right), cuda::output(dx));
}

void Linear::Weight::cuda(const Tensor& dw, bool add, const Tensor& dy, const Tensor& x) {
  constexpr const char* op = "linear, gradient of w";
  const int64_t rows = x.shape().rows(), out = dw.shape(0), in = dw.shape(1);
  if (dy.dtype() == x.dtype())
    return cuda::gemm(op, out, in, rows, cuda::transposed(cuda::operand(dy)), cuda::operand(x), cuda::output(dw), add);
  const Tensor terms = stacked_terms(op, dy, kEachTerm);
  for (int i = kTerms - 1; i >= 0; --i)
    cuda::gemm(op, out, in, rows, cuda::transposed(rows_of(terms, i, rows)), cuda::operand(x), cuda::output(dw),
               add || i < kTerms - 1);
}

void Linear::Bias::cuda(const Tensor& dbias, bool add, const Tensor& dy) {
  cuda::visit(dy.dtype(), [&]<class T>() {
    cuda::column_sums({"linear, gradient of bias", dbias, dy}, dbias, add, dy.shape().rows(),
                      cuda::Stored<T>{cuda::pointer<const T>(dy), dy.shape(-1)});
  });
}

}  // namespace agon
