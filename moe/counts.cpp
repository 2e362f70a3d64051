#include "moe/counts.h"

#include "core/copy.h"

namespace agon {

void CountExperts::cpu(const Tensor& counts, const Tensor& expert, const Tensor& token_offsets,
                       const Tensor& scope_offsets) {
  const auto expert_of = expert.data<const int32_t>(), offset = token_offsets.data<const int32_t>(),
             scope = scope_offsets.data<const int32_t>();
  counts.zero();
  for (size_t s = 0; s + 1 < scope.size(); ++s) {
    double* const row = counts.data<double>().data() + int64_t(s) * counts.shape(1);
    for (auto i = size_t(offset[size_t(scope[s])]); i < size_t(offset[size_t(scope[s + 1])]); ++i) ++row[expert_of[i]];
  }
}

void SharesOf::cpu(const Tensor& share, const Tensor& counts) {
  const int64_t S = counts.shape(0), E = counts.shape(1);
  const double* const from = counts.data<const double>().data();
  for (int64_t s = 0; s < S; ++s) {
    double total = 0;
    for (int64_t e = 0; e < E; ++e) total += from[s * E + e];
    for (int64_t e = 0; e < E; ++e) share.data<double>()[size_t(s * E + e)] = total > 0 ? from[s * E + e] / total : 0;
  }
}

void AddCounts::cpu(const Tensor& counts, const Tensor& more) {
  const auto to = counts.data<double>();
  const auto from = more.data<const double>();
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

Tensor count_experts(const Tensor& expert, const Tensor& token_offsets, const Tensor& scope_offsets, int64_t experts) {
  Tensor counts({scope_offsets.size() - 1, experts}, DType::f64, expert.device());
  run<CountExperts>(expert.device(), counts, expert, token_offsets, scope_offsets);
  return counts;
}

Tensor one_scope(int64_t tokens, Device device) {
  Tensor offsets({2}, DType::i32, device);
  fill_steps(offsets, 0, tokens);
  return offsets;
}

Tensor shares_of(const Tensor& counts) {
  Tensor share(counts.shape(), DType::f64, counts.device());
  run<SharesOf>(counts.device(), share, counts);
  return share;
}

void add_counts(const Tensor& counts, const Tensor& more) {
  check(counts.size() == more.size(), "add_counts: ", more.shape(), " to ", counts.shape());
  run<AddCounts>(counts.device(), counts, more);
}

}  // namespace agon
