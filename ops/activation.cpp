#include "ops/activation.h"

#include "autograd/tape.h"
#include "ops/cpu/map.h"

namespace agon {

namespace {

/// y = Op(x), whose gradient is made from dy and x.
template <class Op>
Tensor by_input(const char* name, const Tensor& x) {
  Tensor y(x.shape(), x.dtype(), x.device());
  run<typename Op::Forward>(x.device(), y, x);
  return record(name, {&x}, y, [x](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<typename Op::Backward>(x.device(), dx, dy, x);
    g.add(x, dx);
  });
}

/// y = Op(x), whose gradient is made from dy and y: x need not be kept.
template <class Op>
Tensor by_output(const char* name, const Tensor& x) {
  Tensor y(x.shape(), x.dtype(), x.device());
  run<typename Op::Forward>(x.device(), y, x);
  return record(name, {&x}, y, [x = x.without_data(), y](Gradients& g, const Tensor& dy) {
    Tensor dx(y.shape(), y.dtype(), y.device());
    run<typename Op::Backward>(y.device(), dx, dy, y);
    g.add(x, dx);
  });
}

}  // namespace

Tensor gelu(const Tensor& x) { return by_input<Gelu>("gelu", x); }
Tensor relu(const Tensor& x) { return by_output<Relu>("relu", x); }
Tensor sigmoid(const Tensor& x) { return by_output<Sigmoid>("sigmoid", x); }

}  // namespace agon
