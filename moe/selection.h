#pragma once
#include "moe/scopes.h"

// Rules that choose pairs: functions of scores, which a strategy composes. Integers without a gradient.

namespace agon {

/// Chosen pairs, token-major, as in Pairs.
struct Selection {
  Tensor expert;         // [N] i32
  Tensor token_offsets;  // [T+1] i32
};

/// Throws Error naming layer, step and the first place where scores [T, E] of `whose` is NaN.
void check_scores(const Tensor& scores, const RouterContext& context, const char* whose = "the router's");

enum class GroupScore { max, top2 };

/// Every token keeps its k best experts. With groups > 0 the experts form that many groups of equal size, and only
/// those in the token's groups_kept best groups take part (DeepSeek-V2: a group counts as its best expert; DeepSeek-V3:
/// as the sum of its two best).
struct PerToken {
  int64_t k = 1;
  int64_t groups = 0, groups_kept = 0;
  GroupScore group_score = GroupScore::max;
};

/// scores [T, E] f32 (f64); bias [E] of the same dtype, or none, is added for the choice only. N = T k, a token's best
/// expert first, ties to the lower index, of groups too.
Selection select_per_token(const Tensor& scores, const Tensor& bias, const PerToken& rule);

/// The first pair of every token that has one. N stays the number of tokens: a bound.
Selection first_choices(const Tensor& expert, const Tensor& token_offsets);

/// What remains of a selection.
struct Kept {
  Selection selection;  // N stays the bound it was
  Tensor pair;          // [N] i32: which pair of the old selection each one was; -1 past the last
};

enum class Drop { position, score };

/// No expert keeps more than ceil(factor k T / E) pairs of a scope of T tokens. `position`: all tokens' first choices
/// come before second ones, then earlier tokens first (GShard, arXiv 2006.16668). `score`: the larger scores [T, E]
/// stay, of equal ones the earlier token's.
Kept drop_over_capacity(const Selection& chosen, const Tensor& scores, const Tensor& scope_offsets, int64_t k,
                        double factor, Drop rule);

}  // namespace agon
