#include "ops/grad_norm.h"

#include <atomic>
#include <vector>

#include "ops/cpu/lanes.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

double square_sum(const Tensor& t) {
  return visit_accumulator(t.dtype(), [&]<class A>() {
    const A* const in = t.data<const A>().data();
    std::vector<double> partial(size_t((t.size() + cpu::kGrain - 1) / cpu::kGrain));
    const auto& kernels = cpu::update_kernels<A>();
    parallel_ranges(t.size(), cpu::kGrain, [&](int64_t begin, int64_t end) {
      partial[size_t(begin / cpu::kGrain)] = kernels.square_sum(in + begin, end - begin);
    });
    double sum = 0;
    for (double s : partial) sum += s;
    return sum;
  });
}

}  // namespace

void GradNorm::SquareSum::cpu(const Tensor& sum, std::span<Parameter* const> parameters) {
  double total = 0;
  for (const Parameter* p : parameters) total += square_sum(p->grad);
  sum.data<double>()[0] = total;
}

void GradNorm::AllFinite::cpu(const Tensor& t, bool* finite) {
  visit_accumulator(t.dtype(), [&]<class A>() {
    const A* const in = t.data<const A>().data();
    std::atomic<bool> found = false;
    parallel_ranges(t.size(), cpu::kGrain, [&](int64_t begin, int64_t end) {
      // x - x is 0 for a finite x and NaN for any other, and NaN survives the sum.
      const A zero = cpu::sum_lanes<A>(end - begin, [from = in + begin](int64_t i) { return from[i] - from[i]; });
      if (!(zero == A(0))) found = true;
    });
    *finite = !found;
  });
}

Tensor grad_square_sum(std::span<Parameter* const> parameters) {
  for (const Parameter* p : parameters)
    check(p->has_grad, "grad_square_sum: no tape has written the gradient of ", p->name);
  const Device device = parameters.empty() ? Device{} : parameters.front()->grad.device();
  Tensor sum({1}, DType::f64, device);
  run<GradNorm::SquareSum>(device, sum, parameters);
  return sum;
}

const Parameter* first_non_finite(std::span<Parameter* const> parameters) {
  for (const Parameter* p : parameters) {
    bool finite = true;
    run<GradNorm::AllFinite>(p->grad.device(), p->grad, &finite);
    if (!finite) return p;
  }
  return nullptr;
}

}  // namespace agon
