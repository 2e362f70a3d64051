#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/tensor.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/rows.h"

namespace agon::cpu {

/// The maximum of a row that arrives in chunks, in order, and the sum of exp(v - maximum). A is float or double. A NaN
/// in the row makes the sum NaN.
template <class A>
struct SoftmaxSum {
  A maximum = -std::numeric_limits<A>::infinity(), sum = 0;

  template <class T>
  void take(const T* row, int64_t n) {
    const auto& rows = row_kernels<T>();
    const A highest = rows.max(maximum, row, A(1), n);
    sum = (sum > 0 ? sum * exp(maximum - highest) : sum) + rows.exp_sum(row, highest, n);
    maximum = highest;
  }
  /// -log softmax of a class with this logit, without the cancellation that log(sum of exp) - logit would bring.
  A loss(A logit) const { return maximum - logit + std::log(sum); }
};

/// gradient[v] = (softmax[v] - [v == label]) * scale for the classes [0, n) of the row or of one chunk of it: the
/// gradient of scale * loss. May run in place.
template <class T, class A>
void cross_entropy_gradient(T* gradient, const T* row, int64_t n, const SoftmaxSum<A>& sum, int64_t label, A scale) {
  const bool here = label >= 0 && label < n;
  const A inverse = A(1) / sum.sum, logit = here ? A(row[label]) : A(0);
  row_kernels<T>().exp_scaled(gradient, row, sum.maximum, inverse, scale, n);
  if (here) gradient[label] = T((exp(logit - sum.maximum) * inverse - A(1)) * scale);
}

/// Throws UserError unless every target is below the number of classes.
inline void check_targets(const Tensor& target, int64_t classes) {
  const auto ids = target.data<const int32_t>();
  for (size_t t = 0; t < ids.size(); ++t)
    require(ids[t] < classes, "the target at position ", t, " is ", ids[t], ", expected an id below the vocabulary's ",
            classes);
}

}  // namespace agon::cpu
