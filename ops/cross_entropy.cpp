#include "ops/cross_entropy.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/cpu/cross_entropy.h"

namespace agon {

void CrossEntropyForward::cpu(const CrossEntropy& result, const Tensor& gradient, const Tensor& logits,
                              const Tensor& target, double denominator) {
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  cpu::check_targets(target, classes);
  visit_float(logits.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const auto per_token = result.per_token.data<A>();
    const auto label = target.data<const int32_t>();
    parallel_ranges(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const T* row = logits.data<const T>().data() + t * classes;
        const bool counts = label[t] >= 0;
        cpu::SoftmaxSum<A> sum;
        if (counts) sum.take(row, classes);
        per_token[t] = counts ? sum.loss(A(row[label[t]])) : A(0);
        if (!gradient) continue;
        T* g = gradient.data<T>().data() + t * classes;
        if (counts)
          cpu::cross_entropy_gradient(g, row, classes, sum, label[t], A(1 / denominator));
        else
          std::fill_n(g, classes, T(0.f));
      }
    });
  });
}

void MeanLoss::cpu(const Tensor& loss, const Tensor& per_token, double denominator) {
  visit_accumulator(loss.dtype(), [&]<class A>() {
    double sum = 0;
    for (const A v : per_token.data<const A>()) sum += double(v);
    loss.data<A>()[0] = A(sum / denominator);
  });
}

void ScaleGradient::cpu(const Tensor& gradient, const Tensor& dloss) {
  const double by = dloss.item();
  if (by == 1) return;
  visit_float(gradient.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    for (T& v : gradient.data<T>()) v = T(A(v) * A(by));
  });
}

CrossEntropy cross_entropy(Tensor logits, const Tensor& target, double denominator) {
  check(logits.shape().rank() == 2 && target.dtype() == DType::i32 && target.shape() == Shape{logits.shape(0)},
        "cross_entropy: target ", target.shape(), " of ", target.dtype(), " does not go with logits ", logits.shape(),
        ", expected one i32 per row");
  const DType dtype = accumulator_dtype(logits.dtype());
  CrossEntropy result{Tensor({1}, dtype, logits.device()), Tensor({logits.shape(0)}, dtype, logits.device())};
  Tensor gradient;
  if (recording({&logits}))
    gradient = logits.unique() ? logits : Tensor(logits.shape(), logits.dtype(), logits.device());
  run<CrossEntropyForward>(logits.device(), result, gradient, logits, target, denominator);
  run<MeanLoss>(logits.device(), result.loss, result.per_token, denominator);
  record("cross_entropy", {&logits}, result.loss,
         [logits = logits.without_data(), gradient](Gradients& g, const Tensor& dloss) {
           run<ScaleGradient>(gradient.device(), gradient, dloss);
           g.add(logits, gradient);
         });
  return result;
}

}  // namespace agon
