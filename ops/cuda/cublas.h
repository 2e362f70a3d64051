#pragma once
#include <cstdint>

#include "core/tensor.h"

// Matrix products on a GPU by cuBLASLt, in our terms. The library is opened when the first product is made: a program
// starts on machines without it.

namespace agon::cuda {

/// A matrix in a GPU's memory, f32 or bf16: element (i, j) is data[i * stride + j], or data[j * stride + i] where
/// transposed.
struct GemmOperand {
  const void* data;
  DType dtype;
  int64_t stride;
  bool transposed = false;
};
struct GemmOutput {
  void* data;
  DType dtype;
  int64_t stride;
};

/// c [m, n] = [c +] a [m, k] b [k, n] (+ bias [n], of c's dtype), summed in f32 and rounded once, on this thread's
/// stream. a and b have one dtype. f32 operands are multiplied as such unless tf32() (core/gpu.h). No depth (k = 0) is
/// a sum of nothing. `op` names the caller in errors. Throws Error when the library is missing or has no way to do it.
void gemm(const char* op, int64_t m, int64_t n, int64_t k, GemmOperand a, GemmOperand b, GemmOutput c, bool add = false,
          const void* bias = nullptr);

/// The rows of a tensor (all extents but the last) as an operand or an output: a Tensor is a handle.
inline const void* address_there(const Tensor& t) {
  check(!t || t.device().kind == Device::cuda, "a product on a GPU got a tensor on ", t.device(), ", shape ",
        t.shape());
  return t.address();
}
inline GemmOperand operand(const Tensor& t) { return {address_there(t), t.dtype(), t.shape(-1)}; }
inline GemmOperand transposed(GemmOperand o) { return {o.data, o.dtype, o.stride, !o.transposed}; }
inline GemmOutput output(const Tensor& t) { return {const_cast<void*>(address_there(t)), t.dtype(), t.shape(-1)}; }

}  // namespace agon::cuda
