#include "ops/activation.h"

#include "autograd/tape.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

/// y = kernel(x), and y = kernel(a, b), element for element; kernel(rows) is one of RowKernels' members.
template <class F>
void map_rows(const Tensor& y, const Tensor& x, F&& kernel) {
  visit_float(x.dtype(), [&]<class T>() {
    const auto run_row = kernel(cpu::row_kernels<T>());
    T* const out = y.data<T>().data();
    const T* const in = x.data<const T>().data();
    parallel_ranges(x.size(), cpu::kGrain,
                    [=](int64_t begin, int64_t end) { run_row(out + begin, in + begin, end - begin); });
  });
}
template <class F>
void map_rows(const Tensor& y, const Tensor& a, const Tensor& b, F&& kernel) {
  visit_float(a.dtype(), [&]<class T>() {
    const auto run_row = kernel(cpu::row_kernels<T>());
    T* const out = y.data<T>().data();
    const T* const left = a.data<const T>().data();
    const T* const right = b.data<const T>().data();
    parallel_ranges(a.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
      run_row(out + begin, left + begin, right + begin, end - begin);
    });
  });
}

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

void Gelu::Forward::cpu(const Tensor& y, const Tensor& x) {
  map_rows(y, x, [](const auto& rows) { return rows.gelu; });
}
void Gelu::Backward::cpu(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  map_rows(dx, dy, x, [](const auto& rows) { return rows.gelu_backward; });
}
void Sigmoid::Forward::cpu(const Tensor& y, const Tensor& x) {
  map_rows(y, x, [](const auto& rows) { return rows.sigmoid; });
}

Tensor gelu(const Tensor& x) { return by_input<Gelu>("gelu", x); }
Tensor relu(const Tensor& x) { return by_output<Relu>("relu", x); }
Tensor sigmoid(const Tensor& x) { return by_output<Sigmoid>("sigmoid", x); }

}  // namespace agon
