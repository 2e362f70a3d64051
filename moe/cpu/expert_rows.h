#pragma once
#include "moe/experts.h"
#include "ops/activation.h"
#include "ops/cpu/gemm_blocks.h"
#include "ops/cpu/matrix.h"
#include "ops/cpu/rows.h"

// What experts do to a block of rows on the CPU: both products with the activation between them while the hidden layer
// is in the cache.
namespace agon::cpu {

/// One expert's activation on rows of T: before [gate | up] or [before] -> hidden.
template <class T>
void activate_row(Activation activation, T* hidden, const T* before, const T* up, int64_t n) {
  using A = Accumulator<T>;
  switch (activation) {
    case Activation::swiglu:
      return row_kernels<T>().swiglu(hidden, before, up, n);
    case Activation::gelu:
      return row_kernels<T>().gelu(hidden, before, n);
    case Activation::relu:
      for (int64_t i = 0; i < n; ++i) hidden[i] = T(Relu::Forward()(A(before[i])));
  }
}

/// before [gate | up] or [before] becomes its own gradient.
template <class T>
void activate_row_backward(Activation activation, T* before, T* up, const T* dhidden, int64_t n) {
  using A = Accumulator<T>;
  switch (activation) {
    case Activation::swiglu:
      return row_kernels<T>().swiglu_backward(before, up, dhidden, before, up, n);
    case Activation::gelu:
      return row_kernels<T>().gelu_backward(before, dhidden, before, n);
    case Activation::relu:
      for (int64_t i = 0; i < n; ++i) before[i] = T(Relu::Backward()(A(dhidden[i]), A(before[i])));
  }
}

/// Calls f(numbers, stride) with a place to make [m, n] in, and rounds what f left there if `to` is narrower.
template <class A, class T, class F>
void make_rounded(T* to, int64_t stride, int64_t m, int64_t n, F&& f) {
  if constexpr (std::is_same_v<T, A>) {
    f(to, stride);
  } else {
    A* const wide = scratch<A>(Scratch::wide, m * n);
    f(wide, n);
    for (int64_t i = 0; i < m; ++i)
      widest_gemm_instructions().round_to_bf16(reinterpret_cast<uint16_t*>(to + i * stride), wide + i * n, n);
  }
}

/// Those of one rank, as ExpertGroup has them.
struct ExpertWeights {
  const Tensor &up, &down, &up_bias, &down_bias;
  Activation activation;
};

/// The experts with these weights. T: what tensors hold; P: what operands are packed as.
template <class T, class P>
class ExpertRows {
 public:
  using A = Accumulator<T>;

  ExpertRows(const GemmBlocks<P>& blocks, const ExpertWeights& weights)
      : gemm(blocks), w(weights), D(w.up.shape(2)), F(w.down.shape(2)), B(w.up.shape(1)) {}

  /// Where a piece of the hidden layer before its activation lies: [m, n] at `gate`, and its other half `up` elements
  /// on.
  struct Before {
    T* gate;
    int64_t stride, up;
  };

  /// out [m, D], `expert`'s answers to the packed rows `left`. place(f, n): where columns [f, f + n) go.
  template <class Place>
  void answer(T* out, const P* left, int64_t m, int64_t expert, Place&& place) const {
    A* sum;  // over the depths; rounded at the end
    if constexpr (std::is_same_v<T, A>)
      sum = out;
    else
      sum = scratch<A>(Scratch::sums, m * D);
    const Pieces depths = gemm.depths(F);
    for (int64_t d = 0; d < depths.count; ++d) {
      const int64_t f = gemm.depth_begin(depths, d), depth = gemm.depth_size(depths, d, F);
      P* const hidden = scratch<P>(Scratch::hidden, gemm.left_size(m, depth));
      for (int64_t at = 0; at < depth; at += kHot) {
        const int64_t n = std::min(kHot, depth - at);
        const Before before = place(f + at, n);
        for (int64_t part = 0; part < B; part += F)
          make_before(before.gate + (part ? before.up : 0), before.stride, left, m, expert, part + f + at, n);
        T* const rows = scratch<T>(Scratch::slopes, m * n);
        for (int64_t i = 0; i < m; ++i) {
          const T* const gate = before.gate + i * before.stride;
          activate_row(w.activation, rows + i * n, gate, gate + before.up, n);
        }
        gemm.pack_left_part(hidden, m, depth, at, n, {rows, dtype_of<T>, n, 1});
      }
      gemm.multiply(hidden, m, D, depth, weight(w.down, expert).from(0, f).transposed(), sum, D, d > 0);
    }
    if constexpr (!std::is_same_v<T, A>)
      widest_gemm_instructions().round_to_bf16(reinterpret_cast<uint16_t*>(out), sum, m * D);
    if (w.down_bias) add_row_bias(out, D, m, D, w.down_bias.data<const T>().data() + expert * D);
  }

  static ConstMatrix weight(const Tensor& weights, int64_t expert) {
    return matrix(weights).from(expert * weights.shape(1), 0);
  }

  const GemmBlocks<P>& gemm;
  const ExpertWeights w;
  const int64_t D, F, B;  // B: width before the activation

 private:
  static constexpr int64_t kHot = 128;  // columns of the hidden layer between product and activation

  void make_before(T* to, int64_t stride, const P* left, int64_t m, int64_t expert, int64_t column, int64_t n) const {
    make_rounded<A>(to, stride, m, n, [&](A* numbers, int64_t s) {
      gemm.multiply(left, m, n, D, weight(w.up, expert).from(column, 0).transposed(), numbers, s, false);
    });
    if (w.up_bias) add_row_bias(to, stride, m, n, w.up_bias.data<const T>().data() + expert * B + column);
  }

  static void add_row_bias(T* rows, int64_t stride, int64_t m, int64_t n, const T* bias) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) rows[i * stride + j] = T(A(rows[i * stride + j]) + A(bias[j]));
  }
};

/// Calls f(ExpertRows) for experts whose weights are of dtype.
template <class F>
void with_expert_rows(DType dtype, const Tensor& up, const Tensor& down, const Tensor& up_bias, const Tensor& down_bias,
                      Activation activation, F&& f) {
  visit_float(dtype, [&]<class T>() {
    with_gemm_blocks(widest_gemm_instructions(), dtype, dtype, [&]<class P>(const GemmBlocks<P>& blocks) {
      if constexpr (std::is_same_v<typename Packed<P>::Number, Accumulator<T>>)
        f(ExpertRows<T, P>(blocks, {up, down, up_bias, down_bias, activation}));
    });
  });
}

}  // namespace agon::cpu
