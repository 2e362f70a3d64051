#include "ops/elementwise.h"

#include "ops/cpu/lanes.h"
#include "ops/cpu/map.h"
#include "ops/parameter_gradient.h"

namespace agon {

void check_alike(const char* name, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), name, ": expected two tensors of one shape and dtype, got ",
        a.dtype(), ' ', a.shape(), " and ", b.dtype(), ' ', b.shape());
}

namespace {

Tensor scaled(const Tensor& x, double factor) {
  Tensor y(x.shape(), x.dtype(), x.device());
  run<Scale::Forward>(x.device(), y, x, Scale::Forward(factor));
  return y;
}

Tensor product(const Tensor& a, const Tensor& b) {
  Tensor y(a.shape(), a.dtype(), a.device());
  run<Multiply::Forward>(a.device(), y, a, b);
  return y;
}

Tensor in_dtype(const Tensor& x, DType dtype) {
  Tensor y(x.shape(), dtype, x.device());
  run<Cast::Forward>(x.device(), y, x);
  return y;
}

Tensor rows_scaled(const Tensor& x, const Tensor& gain) {
  Tensor y(x.shape(), x.dtype(), x.device());
  run<ScaleRows::Forward>(x.device(), y, x, gain);
  return y;
}

}  // namespace

void Cast::Forward::cpu(const Tensor& y, const Tensor& x) {
  visit_float(y.dtype(), [&]<class To>() {
    visit_float(x.dtype(), [&]<class From>() {
      To* const out = y.data<To>().data();
      const From* const in = x.data<const From>().data();
      parallel_ranges(x.size(), cpu::kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = To(Accumulator<From>(in[i]));
      });
    });
  });
}

void ScaleRows::Forward::cpu(const Tensor& y, const Tensor& x, const Tensor& gain) {
  visit_float(x.dtype(), [&]<class T>() {
    visit_float(gain.dtype(), [&]<class G>() {
      using A = Accumulator<T>;
      const int64_t width = x.shape(-1);
      T* const out = y.data<T>().data();
      const T* const in = x.data<const T>().data();
      const G* const gains = gain.data<const G>().data();
      cpu::each_row(x.shape().rows(), width, [=](int64_t n) {
        const A by = A(gains[n]);
        for (int64_t i = n * width; i < (n + 1) * width; ++i) out[i] = T(A(in[i]) * by);
      });
    });
  });
}

void ScaleRows::Gain::cpu(const Tensor& dgain, const Tensor& dy, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    visit_float(dgain.dtype(), [&]<class G>() {
      using A = Accumulator<T>;
      const int64_t width = x.shape(-1);
      G* const out = dgain.data<G>().data();
      const T* const in = x.data<const T>().data();
      const T* const slope = dy.data<const T>().data();
      cpu::each_row(x.shape().rows(), width, [=](int64_t n) {
        const T *const a = in + n * width, *const b = slope + n * width;
        out[n] = G(cpu::sum_lanes<A>(width, [=](int64_t i) { return A(a[i]) * A(b[i]); }));
      });
    });
  });
}

Tensor add(const Tensor& a, const Tensor& b) {
  check_alike("add", a, b);
  Tensor y(a.shape(), a.dtype(), a.device());
  run<Add::Forward>(a.device(), y, a, b);
  return record_add(a, b, y);
}

Tensor record_add(const Tensor& a, const Tensor& b, const Tensor& y) {
  return record("add", {&a, &b}, y, [a = a.without_data(), b = b.without_data()](Gradients& g, const Tensor& dy) {
    g.add(a, dy);
    g.add(b, dy);
  });
}

Tensor subtract(const Tensor& a, const Tensor& b) {
  check_alike("subtract", a, b);
  Tensor y(a.shape(), a.dtype(), a.device());
  run<Subtract::Forward>(a.device(), y, a, b);
  return record("subtract", {&a, &b}, y, [a = a.without_data(), b = b.without_data()](Gradients& g, const Tensor& dy) {
    g.add(a, dy);
    if (g.wants(b)) g.add(b, scaled(dy, -1));
  });
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  check_alike("multiply", a, b);
  return record("multiply", {&a, &b}, product(a, b), [a, b](Gradients& g, const Tensor& dy) {
    if (g.wants(a)) g.add(a, product(dy, b));
    if (g.wants(b)) g.add(b, product(dy, a));
  });
}

Tensor scale(const Tensor& x, double factor) {
  return record("scale", {&x}, scaled(x, factor),
                [x = x.without_data(), factor](Gradients& g, const Tensor& dy) { g.add(x, scaled(dy, factor)); });
}

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return record("cast", {&x}, in_dtype(x, dtype),
                [x = x.without_data()](Gradients& g, const Tensor& dy) { g.add(x, in_dtype(dy, x.dtype())); });
}

Tensor scale_rows(const Tensor& x, const Tensor& gain) {
  check(x.shape().rank() >= 1 && gain.size() == x.shape().rows() &&
            (gain.dtype() == x.dtype() || gain.dtype() == accumulator_dtype(x.dtype())),
        "scale_rows: expected one number for each row of x, ", x.dtype(), ' ', x.shape(), ", got ", gain.dtype(), ' ',
        gain.shape());
  return record("scale_rows", {&x, &gain}, rows_scaled(x, gain), [x, gain](Gradients& g, const Tensor& dy) {
    if (g.wants(x)) g.add(x, rows_scaled(dy, gain));
    if (!g.wants(gain)) return;
    Tensor dgain(gain.shape(), gain.dtype(), gain.device());
    run<ScaleRows::Gain>(x.device(), dgain, dy, x);
    g.add(gain, dgain);
  });
}

}  // namespace agon
