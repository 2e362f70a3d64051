#pragma once
#include "core/tensor.h"

namespace agon {

// Elementwise arithmetic on tensors of equal shape and dtype; each differentiable in all its tensors.
Tensor add(const Tensor& a, const Tensor& b);
/// Throws, naming the op, unless a and b have one shape and dtype.
void check_alike(const char* name, const Tensor& a, const Tensor& b);
/// Records y as add(a, b), for an op whose kernel made that sum among other things. Returns y.
Tensor record_add(const Tensor& a, const Tensor& b, const Tensor& y);
Tensor subtract(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, double factor);
/// x in another dtype; the gradient comes back in the dtype of x.
Tensor cast(const Tensor& x, DType dtype);
/// x [..., D] * gain [..., 1]: each row times its own number; gain has x.size() / D elements and may be f32 beside
/// bf16.
Tensor scale_rows(const Tensor& x, const Tensor& gain);

/// Kernels y[i] = f(x[i]) and y[i] = f(a[i], b[i]) on tensors of one dtype: an elementwise op derives its functor from
/// one of these. F computes in the accumulator type, takes its constants as doubles and is constexpr, so that every
/// device can call it. The loops are in ops/cpu/map.h and ops/cuda/map.cuh.
template <class F>
struct Unary {
  static void cpu(const Tensor& y, const Tensor& x, const F& f = F());
  static void cuda(const Tensor& y, const Tensor& x, const F& f = F());
};
template <class F>
struct Binary {
  static void cpu(const Tensor& y, const Tensor& a, const Tensor& b, const F& f = F());
  static void cuda(const Tensor& y, const Tensor& a, const Tensor& b, const F& f = F());
};

struct Add {
  struct Forward : Binary<Forward> {
    template <class A>
    constexpr A operator()(A a, A b) const {
      return a + b;
    }
  };
};

struct Subtract {
  struct Forward : Binary<Forward> {
    template <class A>
    constexpr A operator()(A a, A b) const {
      return a - b;
    }
  };
};

struct Multiply {
  struct Forward : Binary<Forward> {
    template <class A>
    constexpr A operator()(A a, A b) const {
      return a * b;
    }
  };
};

struct Scale {
  struct Forward : Unary<Forward> {
    double factor;
    explicit constexpr Forward(double by) : factor(by) {}
    template <class A>
    constexpr A operator()(A x) const {
      return x * A(factor);
    }
  };
};

struct Cast {
  /// y and x of any two float dtypes.
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x);
    static void cuda(const Tensor& y, const Tensor& x);
  };
};

struct ScaleRows {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& gain);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& gain);
  };
  /// dgain[n] = dy[n] . x[n].
  struct Gain {
    static void cpu(const Tensor& dgain, const Tensor& dy, const Tensor& x);
    static void cuda(const Tensor& dgain, const Tensor& dy, const Tensor& x);
  };
};

}  // namespace agon
