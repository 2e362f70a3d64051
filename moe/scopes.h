#pragma once
#include <vector>

#include "moe/router.h"

namespace agon {

/// Where the tokens of a micro-batch compete with each other. A routing group is `group` consecutive sequences (0:
/// all); within one the scope is all of it, each sequence alone, or the tokens at one position of its sequences.
struct Scopes {
  Tensor token;                       // [T] i32: the tokens scope by scope, ascending within one
  Tensor offsets;                     // [S+1] i32: where each scope begins in `token`
  Tensor start;                       // [S] i32: where its routing group begins in `token`
  std::vector<int64_t> group_tokens;  // [G]: how many tokens each routing group has

  int64_t count() const { return offsets.size() - 1; }
};

/// Where the sequences among `tokens` tokens begin, [B+1] i32 on `device`: those of the context, or one. A copy, which
/// counts as a crossing, where the device is a GPU and the context has them on the CPU alone.
Tensor sequences_on(const RouterContext& context, int64_t tokens, Device device);

/// Where the routing groups of a micro-batch begin: [G+1] i32 token offsets on `device`. A group is `sequences`
/// consecutive sequences, or, for 0, all its tokens. UserError in training when the last one would not be whole: ranks
/// and micro-batches hold whole routing groups, so that results do not depend on the layout.
Tensor scope_offsets(const RouterContext& context, int64_t tokens, int64_t sequences, Device device = {});

/// kind: "batch" | "sequence" | "time_step". UserError as scope_offsets. On `device`.
Scopes make_scopes(const RouterContext& context, int64_t tokens, int64_t group, const std::string& kind,
                   Device device = {});

/// Whole numbers per scope, [S] i32 beside the scopes, that add up, within each routing group, to what `per_token`
/// times its tokens allows: N_i = floor(b Σ_{j<=i} t_j) - floor(b Σ_{j<i} t_j), products in double.
Tensor spread_budget(const Scopes& scopes, double per_token);
/// Their sum, which the host knows.
int64_t total_budget(const Scopes& scopes, double per_token);

struct GroupOffsets {
  /// offsets[g] = sequences[g in_group], and the end.
  static void cpu(const Tensor& offsets, const Tensor& sequences, int64_t in_group);
  static void cuda(const Tensor& offsets, const Tensor& sequences, int64_t in_group);
};

struct GroupStarts {
  /// start[s] = the offset of the first of the `in_group` scopes that s is one of.
  static void cpu(const Tensor& start, const Tensor& offsets, int64_t in_group);
  static void cuda(const Tensor& start, const Tensor& offsets, int64_t in_group);
};

struct TimeSteps {
  /// Fills the scopes' tensors from sequences [B+1] in groups of in_group.
  static void cpu(const Scopes& scopes, const Tensor& sequences, int64_t in_group);
  static void cuda(const Scopes& scopes, const Tensor& sequences, int64_t in_group);
};

struct SpreadBudget {
  static void cpu(const Tensor& budget, const Scopes& scopes, double per_token);
  static void cuda(const Tensor& budget, const Scopes& scopes, double per_token);

  /// One product, and nothing that a compiler could fuse it with.
  static constexpr int32_t allowed(double per_token, int32_t tokens) { return int32_t(per_token * double(tokens)); }
};

}  // namespace agon
