#include "ops/accumulate.h"

namespace agon {

void Accumulate::cpu(const Tensor& sum, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const auto to = sum.data<double>();
    const auto from = x.data<const T>();
    for (size_t i = 0; i < to.size(); ++i) to[i] += convert<double>(from[i]);
  });
}

void accumulate(const Tensor& sum, const Tensor& x) {
  check(sum.dtype() == DType::f64 && sum.size() == x.size(), "accumulate: ", x.dtype(), ' ', x.shape(), " into ",
        sum.dtype(), ' ', sum.shape());
  if (x.size() > 0) run<Accumulate>(sum.device(), sum, x);
}

}  // namespace agon
