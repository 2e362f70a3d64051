#include "ops/grouped_linear.h"

#include "ops/cuda/grouped.cuh"
#include "ops/cuda/tile_bf16.cuh"
#include "ops/cuda/tile_f32.cuh"

namespace agon {

namespace {

using cuda::Along;

/// Calls f.template operator()<Tile>() with the tile for operands of this dtype that lie along A and B, in rows of
/// these widths.
template <Along A, Along B, class F>
void visit_tile(const Tensor& a, const Tensor& b, F&& f) {
  if (a.dtype() == DType::f32) return f.template operator()<cuda::F32Tile<A, B>>();
  check(a.dtype() == DType::bf16, "a GPU computes in f32 and bf16, got a tensor of ", a.dtype());
  switch (cuda::bytes_at_once<bf16>({a.shape(-1), b.shape(-1)}, {a.address(), b.address()})) {
    case 16:
      return f.template operator()<cuda::Bf16Tile<A, B, 16>>();
    case 4:
      return f.template operator()<cuda::Bf16Tile<A, B, 4>>();
    default:
      return f.template operator()<cuda::Bf16Tile<A, B, 2>>();
  }
}

/// out [N, n] = in [N, k] by each group's matrix of w, which lies along B.
template <Along B>
void launch_rows(const char* op, const Tensor& out, const Tensor& in, const Tensor& w, const Tensor& offsets,
                 const Tensor& bias) {
  const int64_t rows = out.shape(0), n = out.shape(1), groups = w.shape(0);
  visit_tile<Along::depth, B>(in, w, [&]<class Tile>() {
    using T = typename Tile::Element;
    const cuda::RowsOfGroups<T> all = {.c = cuda::pointer<T>(out),
                                       .a = cuda::pointer<const T>(in),
                                       .b = cuda::pointer<const T>(w),
                                       .bias = bias,
                                       .offsets = cuda::pointer<const int32_t>(offsets),
                                       .groups = int(groups),
                                       .rows = rows,
                                       .n = n,
                                       .k = in.shape(1)};
    // A group, and what no group has, may end in a tile that is not full.
    const int64_t tiles = (rows / Tile::kRows + groups + 1) * cuda::blocks(n, Tile::kColumns);
    if (rows > 0)
      cuda::launch({op, in, w, offsets}, cuda::multiply_rows<Tile>, cuda::resident_blocks<Tile>(tiles), Tile::kThreads,
                   Tile::kShared, all);
  });
}

constexpr int kSumColumns = 32, kSumRows = 32;

/// A block: 32 columns of one group, 32 rows at a time. Column j of group e is summed by thread y over the rows y, y +
/// 32, ... of the group, and then over y in order.
template <class S, class T>
__global__ void sum_rows(S* sums, bool add, const T* dy, int64_t n, const int32_t* offsets) {
  __shared__ float partial[kSumRows][kSumColumns];
  const int64_t j = int64_t(blockIdx.x) * kSumColumns + threadIdx.x, group = blockIdx.y;
  float sum = 0;
  if (j < n)
    for (int64_t i = offsets[group] + int(threadIdx.y); i < offsets[group + 1]; i += kSumRows)
      sum += float(dy[i * n + j]);
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || j >= n) return;
  S& out = sums[group * n + j];
  sum = add ? float(out) : 0.0f;
  for (int i = 0; i < kSumRows; ++i) sum += partial[i][threadIdx.x];
  out = S(sum);
}

}  // namespace

void GroupedLinear::Forward::cuda(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets,
                                  const Tensor& bias) {
  launch_rows<Along::depth>("grouped_linear", y, rows, w, offsets, bias);
}

void GroupedLinear::Input::cuda(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets) {
  launch_rows<Along::side>("grouped_linear, gradient of rows", drows, dy, w, offsets, {});
}

void GroupedLinear::Weight::cuda(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows,
                                 const Tensor& offsets) {
  const int64_t groups = dw.shape(0), m = dw.shape(1), n = dw.shape(2);
  visit_tile<Along::side, Along::side>(dy, rows, [&]<class Tile>() {
    using T = typename Tile::Element;
    const int64_t tiles = groups * cuda::blocks(m, Tile::kRows) * cuda::blocks(n, Tile::kColumns);
    const auto into = [&]<class Out>() {
      cuda::launch({"grouped_linear, gradient of w", dw, dy, rows, offsets}, cuda::multiply_groups<Tile, Out>,
                   cuda::resident_blocks<Tile>(tiles), Tile::kThreads, Tile::kShared, cuda::pointer<Out>(dw), add,
                   cuda::pointer<const T>(dy), cuda::pointer<const T>(rows), cuda::pointer<const int32_t>(offsets),
                   groups, m, n);
    };
    if constexpr (std::is_same_v<T, bf16>)
      cuda::visit(dw.dtype(), into);
    else
      into.template operator()<float>();
  });
}

void GroupedLinear::Bias::cuda(const Tensor& dbias, bool add, const Tensor& dy, const Tensor& offsets) {
  const int64_t groups = dbias.shape(0), n = dbias.shape(1);
  cuda::visit(dbias.dtype(), [&]<class S>() {
    cuda::visit(dy.dtype(), [&]<class T>() {
      cuda::launch({"grouped_linear, gradient of bias", dbias, dy}, sum_rows<S, T>,
                   dim3(cuda::blocks(n, kSumColumns), unsigned(groups)), dim3(kSumColumns, kSumRows), 0,
                   cuda::pointer<S>(dbias), add, cuda::pointer<const T>(dy), n, cuda::pointer<const int32_t>(offsets));
    });
  });
}

}  // namespace agon
