#include "ops/accumulate.h"

#include <Eigen/Core>

#include "ops/cpu/map.h"

namespace agon {

void Accumulate::cpu(const Tensor& sum, const Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const auto to = sum.data<double>();
    const auto from = x.data<const T>();
    if constexpr (std::is_same_v<T, bf16>) {
      for (size_t i = 0; i < to.size(); ++i) to[i] += double(float(from[i]));
    } else {
      parallel_ranges(int64_t(to.size()), cpu::kGrain, [&](int64_t begin, int64_t end) {
        const int64_t n = end - begin;
        Eigen::Map<Eigen::ArrayXd>(to.data() + begin, n) +=
            Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>(from.data() + begin, n).template cast<double>();
      });
    }
  });
}

void accumulate(const Tensor& sum, const Tensor& x) {
  check(sum.dtype() == DType::f64 && sum.size() == x.size(), "accumulate: ", x.dtype(), ' ', x.shape(), " into ",
        sum.dtype(), ' ', sum.shape());
  if (x.size() > 0) run<Accumulate>(sum.device(), sum, x);
}

}  // namespace agon
