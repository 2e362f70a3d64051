#include "moe/distillation.h"

#include <algorithm>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/ordered_sum.h"

namespace agon {

namespace {

/// What a chosen pair of each token counts in the mean over pairs: T_g / (T N_g) in a group of N_g pairs.
std::vector<double> weight_of_pairs(const Tensor& token_offsets, const Tensor& scope_offsets) {
  const auto pairs = token_offsets.data<const int32_t>(), scope = scope_offsets.data<const int32_t>();
  std::vector<double> weight(pairs.size() - 1);
  for (size_t g = 0; g + 1 < scope.size(); ++g) {
    const auto begin = size_t(scope[g]), end = size_t(scope[g + 1]);
    const double chosen = std::max(pairs[end] - pairs[begin], 1);
    std::fill(weight.begin() + scope[g], weight.begin() + scope[g + 1],
              double(end - begin) / double(weight.size()) / chosen);
  }
  return weight;
}

}  // namespace

void Distillation::Forward::cpu(const Tensor& loss, const Tensor& q, const Tensor& P, const Tensor& expert,
                                const Tensor& token_offsets, const Tensor& scope_offsets, double theta) {
  const int64_t T = q.shape(0), E = q.shape(1);
  const auto expert_of = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>();
  const std::vector<double> weight = weight_of_pairs(token_offsets, scope_offsets);
  visit_accumulator(q.dtype(), [&]<class S>() {
    const auto a = q.data<const S>(), b = P.data<const S>();
    const auto square = [&](int64_t i) {
      const double gap = double(a[size_t(i)]) - double(b[size_t(i)]);
      return gap * gap;
    };
    const double all = ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      for (int64_t i = begin * E; i < end * E; ++i) sum += square(i);
      return sum;
    });
    const double chosen = ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      for (int64_t t = begin; t < end; ++t)
        for (int64_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
          sum += weight[size_t(t)] * square(t * E + expert_of[size_t(i)]);
      return sum;
    });
    fill(loss, all / double(std::max<int64_t>(T * E, 1)) + theta * chosen);
  });
}

void Distillation::Backward::cpu(const Tensor& dq, const Tensor& dy, const Tensor& q, const Tensor& P,
                                 const Tensor& expert, const Tensor& token_offsets, const Tensor& scope_offsets,
                                 double theta) {
  const int64_t T = q.shape(0), E = q.shape(1);
  const auto expert_of = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>();
  const std::vector<double> weight = weight_of_pairs(token_offsets, scope_offsets);
  const double slope = dy.item(), each = 2 * slope / double(T * E);
  visit_accumulator(q.dtype(), [&]<class S>() {
    const auto a = q.data<const S>(), b = P.data<const S>();
    const auto out = dq.data<S>();
    parallel_ranges(T, 128, [&](int64_t begin, int64_t end) {
      for (auto i = size_t(begin * E); i < size_t(end * E); ++i) out[i] = S(each * (double(a[i]) - double(b[i])));
      for (int64_t t = begin; t < end; ++t)
        for (auto i = size_t(offset[size_t(t)]); i < size_t(offset[size_t(t) + 1]); ++i) {
          const auto at = size_t(t * E + expert_of[i]);
          const double more = 2 * slope * theta * weight[size_t(t)];
          out[at] = S((each + more) * (double(a[at]) - double(b[at])));
        }
    });
  });
}

Tensor distillation(const Tensor& q, const Tensor& P, const Tensor& expert, const Tensor& token_offsets,
                    const Tensor& scope_offsets, double theta) {
  check(q.shape() == P.shape() && q.dtype() == P.dtype() && q.shape(0) == token_offsets.size() - 1, "distillation: q ",
        q.shape(), " and P ", P.shape(), " for ", token_offsets.size() - 1, " tokens");
  Tensor loss({1}, q.dtype(), q.device());
  run<Distillation::Forward>(q.device(), loss, q, P, expert, token_offsets, scope_offsets, theta);
  return record("distillation", {&q}, loss,
                [q, P, expert, token_offsets, scope_offsets, theta](Gradients& g, const Tensor& dy) {
                  Tensor dq(q.shape(), q.dtype(), q.device());
                  run<Distillation::Backward>(q.device(), dq, dy, q, P, expert, token_offsets, scope_offsets, theta);
                  g.add(q, dq);
                });
}

}  // namespace agon
