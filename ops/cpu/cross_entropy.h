#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/tensor.h"

namespace agon::cpu {

/// The maximum of a row that arrives in chunks, in order, and the sum of exp(v - maximum). A is float or double. A NaN
/// in the row makes the sum NaN.
template <class A>
struct SoftmaxSum {
  A maximum = -std::numeric_limits<A>::infinity(), sum = 0;

  template <class T>
  void take(const T* row, int64_t n) {
    A highest = maximum;
    for (int64_t v = 0; v < n; ++v) highest = A(row[v]) > highest ? A(row[v]) : highest;
    A partial[kLanes] = {};  // several sums at once, always added up in the same way
    for (int64_t v = 0; v < n; ++v) partial[v % kLanes] += std::exp(A(row[v]) - highest);
    for (int64_t step = kLanes / 2; step > 0; step /= 2)
      for (int64_t i = 0; i < step; ++i) partial[i] += partial[i + step];
    sum = (sum > 0 ? sum * std::exp(maximum - highest) : sum) + partial[0];
    maximum = highest;
  }
  /// -log softmax of a class with this logit, without the cancellation that log(sum of exp) - logit would bring.
  A loss(A logit) const { return maximum - logit + std::log(sum); }

 private:
  static constexpr int64_t kLanes = 8;
};

/// gradient[v] = (softmax[v] - [v == label]) * scale for the classes [0, n) of the row or of one chunk of it: the
/// gradient of scale * loss. May run in place.
template <class T, class A>
void cross_entropy_gradient(T* gradient, const T* row, int64_t n, const SoftmaxSum<A>& sum, int64_t label, A scale) {
  const A inverse = A(1) / sum.sum;
  for (int64_t v = 0; v < n; ++v)
    gradient[v] = T((std::exp(A(row[v]) - sum.maximum) * inverse - A(v == label)) * scale);
}

/// Throws UserError unless every target is below the number of classes.
inline void check_targets(const Tensor& target, int64_t classes) {
  const auto ids = target.data<const int32_t>();
  for (size_t t = 0; t < ids.size(); ++t)
    require(ids[t] < classes, "the target at position ", t, " is ", ids[t], ", expected an id below the vocabulary's ",
            classes);
}

}  // namespace agon::cpu
