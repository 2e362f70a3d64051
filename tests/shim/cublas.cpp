// Stands in for ops/cuda/cublas.cu where there is no GPU.
#include "ops/cuda/cublas.h"

namespace agon::cuda {

namespace {

float at(const void* data, DType dtype, int64_t i) {
  return dtype == DType::bf16 ? float(static_cast<const bf16*>(data)[i]) : static_cast<const float*>(data)[i];
}
float element(const GemmOperand& o, int64_t i, int64_t j) {
  return at(o.data, o.dtype, o.transposed ? j * o.stride + i : i * o.stride + j);
}

}  // namespace

void gemm(const char* op, int64_t m, int64_t n, int64_t k, GemmOperand a, GemmOperand b, GemmOutput c, bool add,
          const void* bias) {
  const auto known = [](DType t) { return t == DType::f32 || t == DType::bf16; };
  check(a.dtype == b.dtype && known(a.dtype) && known(c.dtype), op, ": a product of ", a.dtype, " and ", b.dtype,
        " into ", c.dtype);
  check(!add || c.dtype == DType::f32, op, ": adding to ", c.dtype);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = add ? at(c.data, c.dtype, i * c.stride + j) : 0;
      for (int64_t l = 0; l < k; ++l) sum += element(a, i, l) * element(b, l, j);
      if (bias) sum += at(bias, c.dtype, j);
      if (c.dtype == DType::bf16)
        static_cast<bf16*>(c.data)[i * c.stride + j] = bf16(sum);
      else
        static_cast<float*>(c.data)[i * c.stride + j] = sum;
    }
}

}  // namespace agon::cuda
