#pragma once
#include <stdint.h>

// Loops over the elements of one row, made for several instruction sets, and the sets there are. Every set gives the
// same bits: terms are summed in 16 lanes as ops/cpu/lanes.h does, products and sums are rounded one by one, the
// exponential is that of ops/cpu/exp.h. Nothing of the standard library here, for the reason gemm_kernels.h gives.
namespace agon {

struct bf16;

namespace cpu {

template <class T>
struct RowNumber {
  using type = float;
};
template <>
struct RowNumber<double> {
  using type = double;
};

/// What there is for rows that hold T: float, bf16 or double. All numbers beside them are f32 (f64 for double). A
/// result may lie where an operand does, element for element.
template <class T>
struct RowKernels {
  using A = typename RowNumber<T>::type;

  /// y = silu(gate) * up.
  void (*swiglu)(T* y, const T* gate, const T* up, int64_t n);
  void (*swiglu_backward)(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t n);

  /// The largest of `start` and x[i] * factor. A NaN in x may be passed over.
  A (*max)(A start, const T* x, A factor, int64_t n);
  /// p[i] = exp(x[i] * factor - top). Gives the sum of them.
  A (*exp)(A* p, const T* x, A factor, A top, int64_t n);
  /// p[i] = exp(p[i] * factor - top), then s[i] = p[i] * (s[i] - mean) * factor.
  void (*exp_slopes)(A* p, A* s, A factor, A top, A mean, int64_t n);

  /// The sum of a[i] * b[i].
  A (*dot)(const T* a, const T* b, int64_t n);
  /// y = x * factor.
  void (*scale)(T* y, const T* x, A factor, int64_t n);
};

struct RowInstructions {
  const char* name;
  RowKernels<float> f32;
  RowKernels<bf16> half;
};

extern const RowInstructions kRowsGeneric, kRowsAvx2, kRowsAvx512;
extern const RowKernels<double> kRowsDouble;

/// The i-th of the sets this processor can run, widest first; null past the last, which is generic.
const RowInstructions* row_instructions(int i);

/// Those of the widest set.
template <class T>
const RowKernels<T>& row_kernels();
template <>
const RowKernels<float>& row_kernels<float>();
template <>
const RowKernels<bf16>& row_kernels<bf16>();
template <>
const RowKernels<double>& row_kernels<double>();

}  // namespace cpu
}  // namespace agon
