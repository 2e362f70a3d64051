#pragma once
#include "core/tensor.h"

namespace agon {

/// grouped_linear on a GPU by one product after the other (ops/cuda/cublas.h), group by group: its offsets are read on
/// the host, which waits for the GPU. For tests and benchmarks, to check and to measure the kernel of
/// ops/grouped_linear.cu.
struct GroupedByLoop {
  static void forward(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias);
  static void input(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets);
  static void weight(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows, const Tensor& offsets);
};

}  // namespace agon
