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
  /// What an expert's row needs in the backward pass, the exponential taken once: hidden = silu(gate) * up, slopes
  /// times weight, and gate and up become their gradients for these slopes of hidden. Gives <slopes before, hidden>.
  A (*swiglu_weighed)(T* hidden, T* gate, T* up, T* slopes, A weight, int64_t n);
  void (*gelu)(T* y, const T* x, int64_t n);
  void (*gelu_backward)(T* dx, const T* dy, const T* x, int64_t n);
  void (*sigmoid)(T* y, const T* x, int64_t n);

  /// The sum of log(1 + exp(x[i])), of silu(x[i]), of max(x[i], 0).
  A (*softplus_sum)(const T* x, int64_t n);
  A (*silu_sum)(const T* x, int64_t n);
  A (*relu_sum)(const T* x, int64_t n);
  /// dx[i] = factor times the slope of what was summed.
  void (*softplus_slopes)(T* dx, const T* x, A factor, int64_t n);
  void (*silu_slopes)(T* dx, const T* x, A factor, int64_t n);

  /// The largest of `start` and x[i] * factor. A NaN in x may be passed over.
  A (*max)(A start, const T* x, A factor, int64_t n);
  /// The sum of exp(x[i] - top).
  A (*exp_sum)(const T* x, A top, int64_t n);
  /// y[i] = exp(x[i] - top) * inverse * factor.
  void (*exp_scaled)(T* y, const T* x, A top, A inverse, A factor, int64_t n);
  void (*softmax)(T* y, const T* x, int64_t n);
  void (*softmax_backward)(T* dx, const T* dy, const T* y, int64_t n);

  /// y = x * r * gain, where r = 1 / sqrt(mean of x² + epsilon). Gives r.
  A (*rms_norm)(T* y, const T* x, const A* gain, A epsilon, int64_t n);
  void (*rms_norm_backward)(T* dx, const T* dy, const T* x, const A* gain, A r, int64_t n);
  /// y = (x - mean) * r * gain + bias, where r = 1 / sqrt(variance + epsilon); bias may be null.
  void (*layer_norm)(T* y, A* mean_and_r, const T* x, const A* gain, const A* bias, A epsilon, int64_t n);
  void (*layer_norm_backward)(T* dx, const T* dy, const T* x, const A* gain, A mean, A r, int64_t n);
  /// sums[i] += dy[i] * ((x[i] - mean) * r).
  void (*add_gain)(A* sums, const T* dy, const T* x, A mean, A r, int64_t n);

  /// (first, second) = (a, b) turned by the angles with these cosines and sines * sign.
  void (*rotate)(T* first, T* second, const T* a, const T* b, const A* cosine, const A* sine, A sign, int64_t n);

  /// The sum of a[i] * b[i].
  A (*dot)(const T* a, const T* b, int64_t n);
  /// y = x * factor.
  void (*scale)(T* y, const T* x, A factor, int64_t n);
  /// dot(a, b), and y = a * factor.
  A (*dot_scale)(T* y, const T* a, const T* b, A factor, int64_t n);
  /// y = the sum over j < count of weight[j] * rows[j], ascending from 0; no weights: 1 each.
  void (*weighted_sum)(T* y, const T* const* rows, const A* weight, int64_t count, int64_t n);
};

/// AdamW's numbers for one step, as ops/adamw.h has them.
template <class A>
struct UpdateNumbers {
  A beta1, rest1, beta2, rest2, correction1, correction2, rate, epsilon;
};

/// What there is for masters and their gradients, which hold A: float or double.
template <class A>
struct UpdateKernels {
  double (*square_sum)(const A* x, int64_t n);
  /// One step of AdamW with gradient * scale; the result also goes to `rounded` unless that is null.
  void (*adamw)(A* w, A* first, A* second, const A* gradient, bf16* rounded, const UpdateNumbers<A>& c, A scale,
                A decay, int64_t n);
};

/// What there is for many rows of A at once: float or double.
template <class A>
struct ChoiceKernels {
  /// index [rows, k]: where the k largest of each row of x [rows, n] are, the largest first, of equal ones the earlier;
  /// a NaN is below everything. `space`: choice_space(n, k) numbers.
  void (*top_k)(int32_t* index, const A* x, int64_t rows, int64_t n, int64_t k, A* space);
};
constexpr int64_t choice_space(int64_t n, int64_t k) { return 16 * (n + 2 * k); }

struct RowInstructions {
  const char* name;
  RowKernels<float> f32;
  RowKernels<bf16> half;
  UpdateKernels<float> update;
  ChoiceKernels<float> choice;
};

extern const RowInstructions kRowsGeneric, kRowsAvx2, kRowsAvx512;
extern const RowKernels<double> kRowsDouble;
extern const UpdateKernels<double> kUpdateDouble;
extern const ChoiceKernels<double> kChoiceDouble;

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

template <class A>
const UpdateKernels<A>& update_kernels();
template <>
const UpdateKernels<float>& update_kernels<float>();
template <>
const UpdateKernels<double>& update_kernels<double>();

template <class A>
const ChoiceKernels<A>& choice_kernels();
template <>
const ChoiceKernels<float>& choice_kernels<float>();
template <>
const ChoiceKernels<double>& choice_kernels<double>();

}  // namespace cpu
}  // namespace agon
