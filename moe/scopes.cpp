#include "moe/scopes.h"

#include <algorithm>
#include <cmath>

#include "core/copy.h"

namespace agon {

namespace {

/// Where the sequences begin, and the number of tokens.
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

}  // namespace

Tensor scope_offsets(const RouterContext& context, int64_t tokens, int64_t sequences) {
  const std::vector<int32_t> sequence = sequence_offsets(context, tokens);
  std::vector<int32_t> offsets;
  for (int64_t b : group_sequences(context, int64_t(sequence.size()) - 1, sequences))
    offsets.push_back(sequence[size_t(b)]);
  return tensor_of(offsets);
}

Scopes make_scopes(const RouterContext& context, int64_t tokens, int64_t group, const std::string& kind) {
  const std::vector<int32_t> sequence = sequence_offsets(context, tokens);
  const std::vector<int64_t> groups = group_sequences(context, int64_t(sequence.size()) - 1, group);
  Scopes scopes;
  std::vector<int32_t> token, offsets{0};
  const auto close = [&] { offsets.push_back(int32_t(token.size())); };
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    scopes.groups.push_back(int64_t(offsets.size()) - 1);
    const auto first = size_t(groups[g]), last = size_t(groups[g + 1]);
    if (kind == "time_step") {
      int32_t longest = 0;
      for (size_t b = first; b < last; ++b) longest = std::max(longest, sequence[b + 1] - sequence[b]);
      for (int32_t position = 0; position < longest; ++position) {
        for (size_t b = first; b < last; ++b)
          if (position < sequence[b + 1] - sequence[b]) token.push_back(sequence[b] + position);
        close();
      }
      continue;
    }
    check(kind == "batch" || kind == "sequence", "a scope is batch, sequence or time_step, not ", kind);
    for (size_t b = first; b < last; ++b) {
      for (int32_t t = sequence[b]; t < sequence[b + 1]; ++t) token.push_back(t);
      if (kind == "sequence") close();
    }
    if (kind == "batch") close();
  }
  scopes.groups.push_back(int64_t(offsets.size()) - 1);
  scopes.token = tensor_of(token);
  scopes.offsets = tensor_of(offsets);
  return scopes;
}

std::vector<int64_t> spread_budget(const Scopes& scopes, double per_token) {
  const auto offset = scopes.offsets.data<const int32_t>();
  std::vector<int64_t> budget;
  for (size_t g = 0; g + 1 < scopes.groups.size(); ++g) {
    const int32_t start = offset[size_t(scopes.groups[g])];
    int64_t spent = 0;
    for (int64_t s = scopes.groups[g]; s < scopes.groups[g + 1]; ++s) {
      const auto allowed = int64_t(std::floor(per_token * double(offset[size_t(s) + 1] - start)));
      budget.push_back(allowed - spent);
      spent = allowed;
    }
  }
  return budget;
}

}  // namespace agon
