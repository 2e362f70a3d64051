#include "ops/reduce.h"

#include <vector>

#include "autograd/tape.h"
#include "ops/cpu/column_sums.h"
#include "ops/cpu/map.h"

namespace agon {

void Reduce::All::cpu(const Tensor& y, const Tensor& x, double factor) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int64_t kPiece = 4096;
    const T* const in = x.data<const T>().data();
    std::vector<A> partial(size_t((x.size() + kPiece - 1) / kPiece));
    parallel_ranges(x.size(), kPiece, [&](int64_t begin, int64_t end) {
      A s = 0;
      for (int64_t i = begin; i < end; ++i) s += A(in[i]);
      partial[size_t(begin / kPiece)] = s;
    });
    A total = 0;
    for (A s : partial) total += s;
    y.data<A>()[0] = total * A(factor);
  });
}

void Reduce::Spread::cpu(const Tensor& dx, const Tensor& dy, double factor) {
  visit_float(dx.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const T value = T(dy.data<const A>()[0] * A(factor));
    T* const out = dx.data<T>().data();
    parallel_ranges(dx.size(), cpu::kGrain,
                    [=](int64_t begin, int64_t end) { std::fill(out + begin, out + end, value); });
  });
}

void Reduce::Columns::cpu(const Tensor& y, const Tensor& x, double factor) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(1);
    const T* const in = x.data<const T>().data();
    const auto add_row = [=](int64_t n, A* sums) {
      for (int64_t e = 0; e < width; ++e) sums[e] += A(in[n * width + e]);
    };
    cpu::column_sums<A>(y.data<A>().data(), false, x.shape(0), width, add_row, A(factor));
  });
}

void Reduce::SpreadColumns::cpu(const Tensor& dx, const Tensor& dy, double factor) {
  visit_float(dx.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = dx.shape(1);
    const A* const in = dy.data<const A>().data();
    T* const out = dx.data<T>().data();
    cpu::each_row(dx.shape(0), width, [=](int64_t n) {
      for (int64_t e = 0; e < width; ++e) out[n * width + e] = T(in[e] * A(factor));
    });
  });
}

namespace {

Tensor reduced(const char* name, const Tensor& x, double factor) {
  Tensor y({1}, accumulator_dtype(x.dtype()), x.device());
  run<Reduce::All>(x.device(), y, x, factor);
  return record(name, {&x}, y, [x = x.without_data(), factor](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Reduce::Spread>(x.device(), dx, dy, factor);
    g.add(x, dx);
  });
}

}  // namespace

Tensor sum(const Tensor& x) { return reduced("sum", x, 1); }

Tensor mean(const Tensor& x) { return reduced("mean", x, 1 / double(std::max<int64_t>(1, x.size()))); }

Tensor column_mean(const Tensor& x) {
  check(x.shape().rank() == 2, "column_mean: expected [T, E], got ", x.shape());
  const double factor = 1 / double(std::max<int64_t>(1, x.shape(0)));
  Tensor y({x.shape(1)}, accumulator_dtype(x.dtype()), x.device());
  run<Reduce::Columns>(x.device(), y, x, factor);
  return record("column_mean", {&x}, y, [x = x.without_data(), factor](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Reduce::SpreadColumns>(x.device(), dx, dy, factor);
    g.add(x, dx);
  });
}

}  // namespace agon
