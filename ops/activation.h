#pragma once
#include <cmath>

#include "ops/cpu/exp.h"
#include "ops/elementwise.h"

namespace agon {

/// x * Φ(x), Φ the standard normal distribution function (erf, not the tanh approximation), elementwise.
Tensor gelu(const Tensor& x);
/// max(x, 0); the derivative at 0 is 0.
Tensor relu(const Tensor& x);
/// 1 / (1 + exp(-x)).
Tensor sigmoid(const Tensor& x);

struct Gelu {
  /// Φ(x), by erfc because 1 + erf cancels far below 0.
  template <class A>
  static constexpr A distribution(A x) {
    return A(0.5) * std::erfc(x * A(-0.70710678118654752440));
  }

  struct Forward : Unary<Forward> {
    static void cpu(const Tensor& y, const Tensor& x);
    template <class A>
    constexpr A operator()(A x) const {
      return x * distribution(x);
    }
  };
  /// dx from dy and x.
  struct Backward : Binary<Backward> {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& x);
    template <class A>
    constexpr A operator()(A dy, A x) const {
      const A density = A(0.39894228040143267794) * cpu::exp(A(-0.5) * x * x);
      return dy * (distribution(x) + x * density);
    }
  };
};

struct Relu {
  struct Forward : Unary<Forward> {
    template <class A>
    constexpr A operator()(A x) const {
      return x < A(0) ? A(0) : x;
    }  // NaN stays NaN
  };
  /// dx from dy and y.
  struct Backward : Binary<Backward> {
    template <class A>
    constexpr A operator()(A dy, A y) const {
      return y > A(0) ? dy : A(0);
    }
  };
};

struct Sigmoid {
  struct Forward : Unary<Forward> {
    static void cpu(const Tensor& y, const Tensor& x);
    template <class A>
    constexpr A operator()(A x) const {
      return A(1) / (A(1) + cpu::exp(-x));
    }
  };
  /// dx from dy and y.
  struct Backward : Binary<Backward> {
    template <class A>
    constexpr A operator()(A dy, A y) const {
      return dy * y * (A(1) - y);
    }
  };
};

}  // namespace agon
