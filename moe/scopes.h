#pragma once
#include <vector>

#include "moe/router.h"

namespace agon {

/// Where the tokens of a micro-batch compete with each other. A routing group is `group` consecutive sequences (0:
/// all); within one the scope is all of it, each sequence alone, or the tokens at one position of its sequences.
struct Scopes {
  Tensor token;                 // [T] i32: the tokens scope by scope, ascending within one
  Tensor offsets;               // [S+1] i32: where each scope begins in `token`
  std::vector<int64_t> groups;  // where each routing group begins among the scopes, and S

  int64_t count() const { return offsets.size() - 1; }
};

/// Where the routing groups of a micro-batch begin: [G+1] i32 token offsets. A group is `sequences` consecutive
/// sequences, or, for 0, all its tokens. UserError in training when the last one would not be whole: ranks and
/// micro-batches hold whole routing groups, so that results do not depend on the layout.
Tensor scope_offsets(const RouterContext& context, int64_t tokens, int64_t sequences);

/// kind: "batch" | "sequence" | "time_step". UserError as scope_offsets.
Scopes make_scopes(const RouterContext& context, int64_t tokens, int64_t group, const std::string& kind);

/// Whole numbers per scope that add up, within each routing group, to what `per_token` times its tokens allows:
/// N_i = floor(b Σ_{j<=i} t_j) - floor(b Σ_{j<i} t_j), products in double.
std::vector<int64_t> spread_budget(const Scopes& scopes, double per_token);

}  // namespace agon
