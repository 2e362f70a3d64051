#include "ops/linear.h"

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/cpu/bias.h"
#include "ops/cpu/matrix.h"
#include "ops/parameter_gradient.h"

namespace agon {

void Linear::Forward::cpu(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const int64_t rows = x.shape().rows();
  cpu::parallel_gemm(rows, w.shape(0), w.shape(1), cpu::matrix(x), cpu::matrix(w).transposed(), cpu::output(y));
  if (bias) parallel_ranges(rows, 64, [&](int64_t begin, int64_t end) { cpu::add_bias(y, begin, end, bias, 0); });
}

void Linear::Input::cpu(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  cpu::parallel_gemm(dx.shape().rows(), w.shape(1), w.shape(0), cpu::matrix(dy), cpu::matrix(w), cpu::output(dx));
}

void Linear::Weight::cpu(const Tensor& dw, bool add, const Tensor& dy, const Tensor& x) {
  cpu::parallel_gemm(dw.shape(0), dw.shape(1), x.shape().rows(), cpu::matrix(dy).transposed(), cpu::matrix(x),
                     cpu::output(dw), add);
}

void Linear::Bias::cpu(const Tensor& dbias, bool add, const Tensor& dy) {
  cpu::sum_rows(dbias, 0, add, dy, 0, dy.shape().rows());
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  check(w.shape().rank() == 2 && x.shape().rank() >= 1 && x.shape(-1) == w.shape(1), "linear: x ", x.shape(),
        " does not go with w ", w.shape(), "; the last extents must agree");
  check(x.dtype() == w.dtype() || (x.dtype() == DType::bf16 && w.dtype() == DType::f32), "linear: x of ", x.dtype(),
        " does not go with w of ", w.dtype());
  check(!bias || bias.shape() == Shape{w.shape(0)}, "linear: bias ", bias.shape(), ", expected ", Shape{w.shape(0)});
  Tensor y(x.shape().with(-1, w.shape(0)), w.dtype(), x.device());
  run<Linear::Forward>(x.device(), y, x, w, bias);
  return record("linear", {&x, &w, &bias}, y, [x, w, bias](Gradients& g, const Tensor& dy) {
    if (g.wants(x)) {
      Tensor dx(x.shape(), x.dtype(), x.device());
      run<Linear::Input>(x.device(), dx, dy, w);
      g.add(x, dx);
    }
    give_gradient(g, w, [&](const Tensor& dw, bool add) { run<Linear::Weight>(x.device(), dw, add, dy, x); });
    give_gradient(g, bias, [&](const Tensor& dbias, bool add) { run<Linear::Bias>(x.device(), dbias, add, dy); });
  });
}

}  // namespace agon
