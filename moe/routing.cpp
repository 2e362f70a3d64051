#include "moe/routing.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/parallel.h"

namespace agon {

namespace {

constexpr size_t kTokens = 512;  // of a task

}  // namespace

void MakePlan::cpu(const Plan& plan, const Tensor& expert) {
  const auto expert_of = expert.data<const int32_t>();
  const auto token_offset = plan.token_offsets.data<const int32_t>();
  const auto token_of_pair = plan.token_of_pair.data<int32_t>(), pair_of_row = plan.pair_of_row.data<int32_t>();
  const auto row_of_pair = plan.row_of_pair.data<int32_t>(), offset = plan.offsets.data<int32_t>();
  const size_t tokens = token_offset.size() - 1, experts = offset.size() - 1, used = size_t(token_offset[tokens]);

  // Blocks of tokens count their pairs of each expert; in order of expert, then of block, that is where their rows
  // begin.
  const size_t blocks = (tokens + kTokens - 1) / kTokens, stride = (experts + 15) / 16 * 16;  // a cache line for each
  std::vector<int32_t> next(blocks * stride);
  const auto in_blocks = [&](auto&& f) {
    parallel_ranges(int64_t(tokens), kTokens, [&](int64_t begin, int64_t end) {
      f(next.data() + size_t(begin) / kTokens * stride, size_t(begin), size_t(end));
    });
  };
  in_blocks([&](int32_t* count, size_t begin, size_t end) {
    for (auto i = size_t(token_offset[begin]); i < size_t(token_offset[end]); ++i) {
      check(expert_of[i] >= 0 && size_t(expert_of[i]) < experts, "make_plan: pair ", i, " names expert ", expert_of[i],
            ", there are ", experts);
      ++count[expert_of[i]];
    }
  });
  int32_t rows = 0;
  for (size_t e = 0; e < experts; ++e) {
    offset[e] = rows;
    for (size_t b = 0; b < blocks; ++b) rows += std::exchange(next[b * stride + e], rows);
  }
  offset[experts] = rows;
  in_blocks([&](int32_t* row_of, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t)
      for (auto i = size_t(token_offset[t]); i < size_t(token_offset[t + 1]); ++i) {
        const int32_t row = row_of[expert_of[i]]++;
        token_of_pair[i] = int32_t(t);
        row_of_pair[i] = row;
        pair_of_row[size_t(row)] = int32_t(i);
      }
  });
  for (const auto& list : {token_of_pair, row_of_pair, pair_of_row})
    std::fill(list.begin() + ptrdiff_t(used), list.end(), -1);
}

Plan make_plan(const Tensor& expert, const Tensor& token_offsets, int64_t experts) {
  check(expert.dtype() == DType::i32 && expert.shape().rank() == 1, "make_plan: expert must be [N] i32, got ",
        expert.shape(), " of ", expert.dtype());
  check(token_offsets.dtype() == DType::i32 && token_offsets.size() >= 1,
        "make_plan: token_offsets must be [T+1] i32, got ", token_offsets.shape(), " of ", token_offsets.dtype());
  const Device device = expert.device();
  if (device.kind == Device::cpu) {
    const auto offset = token_offsets.data<const int32_t>();
    check(offset[0] == 0 && std::ranges::is_sorted(offset) && offset.back() <= expert.size(),
          "make_plan: token_offsets must ascend from 0 to at most ", expert.size(), " pairs, they end at ",
          offset.back());
  }
  const Plan plan{.token_of_pair = Tensor(expert.shape(), DType::i32, device),
                  .pair_of_row = Tensor(expert.shape(), DType::i32, device),
                  .row_of_pair = Tensor(expert.shape(), DType::i32, device),
                  .offsets = Tensor({experts + 1}, DType::i32, device),
                  .token_offsets = token_offsets};
  run<MakePlan>(device, plan, expert);
  return plan;
}

}  // namespace agon
