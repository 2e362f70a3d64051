#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace agon::cpu {

/// A matrix in memory: element (i, j) is data[i * row_stride + j * column_stride], of f32, bf16 or f64.
struct ConstMatrix {
  const void* data;
  DType dtype;
  int64_t row_stride, column_stride;

  ConstMatrix transposed() const { return {data, dtype, column_stride, row_stride}; }
  /// The same matrix from row i, column j on.
  ConstMatrix from(int64_t i, int64_t j) const {
    return {static_cast<const char*>(data) + (i * row_stride + j * column_stride) * size_of(dtype), dtype, row_stride,
            column_stride};
  }
};
struct Matrix {
  void* data;
  DType dtype;
  int64_t row_stride;  // columns are adjacent

  Matrix from(int64_t i, int64_t j) const {
    return {static_cast<char*>(data) + (i * row_stride + j) * size_of(dtype), dtype, row_stride};
  }
};

/// C(i,j) = [C(i,j) +] sum over ascending l of A(i,l) * B(l,j), with A [m,k], B [k,n], C [m,n].
///
/// Each output is one chain of fused multiply-adds, l ascending, starting from 0 or from C; in f64 when A is f64, else
/// in f32 (bf16 operands are widened exactly, a bf16 C is rounded once at the end and cannot be added to). So an
/// output's bits depend on its row of A, its column of B and nothing else: not on m, n, the thread count or the
/// instruction set. A and B have one dtype, or bf16 against f32.
///
/// `gemm` runs on the calling thread; `parallel_gemm` spreads fixed tiles over the pool (core/parallel.h).
void gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add = false);
void parallel_gemm(int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b, Matrix c, bool add = false);

/// "avx512", "avx2" or "generic": the widest the processor has, chosen once at start.
const char* gemm_instruction_set();

}  // namespace agon::cpu
