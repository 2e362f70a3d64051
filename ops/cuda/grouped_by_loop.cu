#include "ops/cuda/grouped_by_loop.h"

#include "core/copy.h"
#include "core/cuda/launch.cuh"
#include "ops/cuda/cublas.h"

namespace agon {

namespace {

constexpr const char* kOp = "grouped_linear by a loop";

/// A matrix from a row on.
template <class Operand>
Operand from(Operand o, int64_t row) {
  using Bytes = std::conditional_t<std::is_same_v<Operand, cuda::GemmOutput>, char, const char>;
  o.data = static_cast<Bytes*>(o.data) + row * o.stride * size_of(o.dtype);
  return o;
}

/// out[group] = in[group] times the k x n matrix of each group.
template <class MatrixOf>
void multiply_rows(const Tensor& out, const Tensor& in, const Tensor& offsets, const Tensor& bias,
                   MatrixOf&& matrix_of) {
  const Tensor host = on_host(offsets);
  const auto offset = host.data<const int32_t>();
  const int64_t n = out.shape(1), row = n * size_of(out.dtype());
  for (int64_t e = 0; e + 1 < int64_t(offset.size()); ++e) {
    const char* const own = bias ? static_cast<const char*>(bias.address()) + e * n * size_of(bias.dtype()) : nullptr;
    cuda::gemm(kOp, offset[e + 1] - offset[e], n, in.shape(1), from(cuda::operand(in), offset[e]), matrix_of(e),
               from(cuda::output(out), offset[e]), false, own);
  }
  const int64_t unused = out.shape(0) - offset.back();
  if (unused > 0)
    cuda::check_call(
        cudaMemsetAsync(from(cuda::output(out), offset.back()).data, 0, size_t(unused * row), cuda::stream()));
}

}  // namespace

void GroupedByLoop::forward(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets,
                            const Tensor& bias) {
  check(!bias || bias.dtype() == y.dtype(), kOp, ": a bias of ", bias.dtype(), " for ", y.dtype());
  multiply_rows(y, rows, offsets, bias,
                [&](int64_t e) { return cuda::transposed(from(cuda::operand(w), e * w.shape(1))); });
}

void GroupedByLoop::input(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets) {
  multiply_rows(drows, dy, offsets, {}, [&](int64_t e) { return from(cuda::operand(w), e * w.shape(1)); });
}

void GroupedByLoop::weight(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows, const Tensor& offsets) {
  const Tensor host = on_host(offsets);
  const auto offset = host.data<const int32_t>();
  for (int64_t e = 0; e < dw.shape(0); ++e)
    cuda::gemm(kOp, dw.shape(1), dw.shape(2), offset[e + 1] - offset[e],
               cuda::transposed(from(cuda::operand(dy), offset[e])), from(cuda::operand(rows), offset[e]),
               from(cuda::output(dw), e * dw.shape(1)), add);
}

}  // namespace agon
