#include "moe/scopes.h"

#include <algorithm>
#include <cmath>

#include "core/copy.h"

namespace agon {

namespace {

/// Where the sequences begin, and the number of tokens: what the host knows.
std::vector<int32_t> sequence_offsets(const RouterContext& context, int64_t tokens) {
  if (!context.sequence_offsets) return {0, int32_t(tokens)};
  const auto given = context.sequence_offsets.data<const int32_t>();
  check(!given.empty() && given[0] == 0 && std::ranges::is_sorted(given) && given.back() == tokens,
        "sequence_offsets must ascend from 0 to the number of tokens, ", tokens, ", they end at ",
        given.empty() ? -1 : given.back());
  return {given.begin(), given.end()};
}

/// Where each group of `sequences` sequences begins in a list of `count` of them, and count.
std::vector<int64_t> group_sequences(const RouterContext& context, int64_t count, int64_t sequences) {
  if (sequences == 0) return {0, count};
  require(context.mode != Mode::train || count % sequences == 0, "moe.router.group = ", sequences,
          ", but a micro-batch has ", count, " sequences on a rank: each must hold whole routing groups");
  std::vector<int64_t> groups;
  for (int64_t b = 0; b < count; b += sequences) groups.push_back(b);
  groups.push_back(count);
  return groups;
}

/// How many positions the longest sequences of the groups have, together.
int64_t time_steps(const std::vector<int32_t>& sequence, const std::vector<int64_t>& groups) {
  int64_t steps = 0;
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    int32_t longest = 0;
    for (auto b = size_t(groups[g]); b < size_t(groups[g + 1]); ++b)
      longest = std::max(longest, sequence[b + 1] - sequence[b]);
    steps += longest;
  }
  return steps;
}

}  // namespace

Tensor sequences_on(const RouterContext& context, int64_t tokens, Device device) {
  if (!context.sequence_offsets) {
    const Tensor one({2}, DType::i32, device);
    fill_steps(one, 0, tokens);
    return one;
  }
  const Tensor& there = context.sequence_offsets_there;
  if (!there || there.device() != device) return on_device(context.sequence_offsets, device);
  check(there.shape() == context.sequence_offsets.shape(), "sequence_offsets ", context.sequence_offsets.shape(),
        " are ", there.shape(), " on ", device);
  return there;
}

Tensor scope_offsets(const RouterContext& context, int64_t tokens, int64_t sequences, Device device) {
  const int64_t count = int64_t(sequence_offsets(context, tokens).size()) - 1;
  const Tensor offsets({int64_t(group_sequences(context, count, sequences).size())}, DType::i32, device);
  run<GroupOffsets>(device, offsets, sequences_on(context, tokens, device), sequences);
  return offsets;
}

Scopes make_scopes(const RouterContext& context, int64_t tokens, int64_t group, const std::string& kind,
                   Device device) {
  check(kind == "batch" || kind == "sequence" || kind == "time_step", "a scope is batch, sequence or time_step, not ",
        kind);
  const std::vector<int32_t> sequence = sequence_offsets(context, tokens);
  const auto count = int64_t(sequence.size()) - 1;
  const std::vector<int64_t> groups = group_sequences(context, count, group);
  const int64_t in_group = group == 0 ? std::max<int64_t>(count, 1) : group;
  Scopes scopes;
  for (size_t g = 0; g + 1 < groups.size(); ++g)
    scopes.group_tokens.push_back(sequence[size_t(groups[g + 1])] - sequence[size_t(groups[g])]);
  const auto list = [&](int64_t n) { return Tensor({n}, DType::i32, device); };
  const Tensor there = sequences_on(context, tokens, device);
  scopes.token = list(tokens);
  if (kind == "time_step") {
    const int64_t steps = time_steps(sequence, groups);
    scopes.offsets = list(steps + 1);
    scopes.start = list(steps);
    run<TimeSteps>(device, scopes, there, in_group);
    return scopes;
  }
  fill_steps(scopes.token, 0, 1);
  scopes.offsets = kind == "sequence" ? there : scope_offsets(context, tokens, group, device);
  scopes.start = list(scopes.count());
  run<GroupStarts>(device, scopes.start, scopes.offsets, kind == "sequence" ? in_group : 1);
  return scopes;
}

Tensor spread_budget(const Scopes& scopes, double per_token) {
  const Tensor budget(scopes.start.shape(), DType::i32, scopes.start.device());
  run<SpreadBudget>(budget.device(), budget, scopes, per_token);
  return budget;
}

int64_t total_budget(const Scopes& scopes, double per_token) {
  int64_t total = 0;
  for (int64_t tokens : scopes.group_tokens) total += int64_t(std::floor(per_token * double(tokens)));
  return total;
}

void GroupOffsets::cpu(const Tensor& offsets, const Tensor& sequences, int64_t in_group) {
  const auto to = offsets.data<int32_t>();
  const auto from = sequences.data<const int32_t>();
  for (size_t g = 0; g + 1 < to.size(); ++g) to[g] = from[g * size_t(in_group)];
  to.back() = from.back();
}

void GroupStarts::cpu(const Tensor& start, const Tensor& offsets, int64_t in_group) {
  const auto to = start.data<int32_t>();
  const auto from = offsets.data<const int32_t>();
  for (size_t s = 0; s < to.size(); ++s) to[s] = from[s / size_t(in_group) * size_t(in_group)];
}

void TimeSteps::cpu(const Scopes& scopes, const Tensor& sequences, int64_t in_group) {
  const auto sequence = sequences.data<const int32_t>();
  const auto token = scopes.token.data<int32_t>(), offset = scopes.offsets.data<int32_t>();
  const auto start = scopes.start.data<int32_t>();
  const auto length = [&](size_t b) { return sequence[b + 1] - sequence[b]; };
  const size_t count = sequence.size() - 1;
  size_t n = 0, s = 0;
  offset[0] = 0;
  for (size_t first = 0; first < count; first += size_t(in_group)) {
    const size_t last = std::min(first + size_t(in_group), count);
    int32_t longest = 0;
    for (size_t b = first; b < last; ++b) longest = std::max(longest, length(b));
    for (int32_t position = 0; position < longest; ++position) {
      for (size_t b = first; b < last; ++b)
        if (position < length(b)) token[n++] = sequence[b] + position;
      start[s] = sequence[first];
      offset[++s] = int32_t(n);
    }
  }
}

void SpreadBudget::cpu(const Tensor& budget, const Scopes& scopes, double per_token) {
  const auto to = budget.data<int32_t>();
  const auto offset = scopes.offsets.data<const int32_t>(), start = scopes.start.data<const int32_t>();
  for (size_t s = 0; s < to.size(); ++s)
    to[s] = allowed(per_token, offset[s + 1] - start[s]) - allowed(per_token, offset[s] - start[s]);
}

}  // namespace agon
