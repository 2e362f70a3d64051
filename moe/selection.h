#pragma once
#include <limits>

#include "moe/scopes.h"

// Rules that choose pairs: functions of scores, which a strategy composes. Integers without a gradient.

namespace agon {

/// Chosen pairs, token-major, as in Pairs.
struct Selection {
  Tensor expert;         // [N] i32
  Tensor token_offsets;  // [T+1] i32
};

/// Throws Error naming layer, step and the first place where scores [T, E] of `whose` is NaN. Looks at the CPU's only:
/// to read a GPU's would stop the step there, and every choice is valid whatever the scores.
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

/// What steers the choice towards even loads (arXiv 2408.15664): bias [E] f32 (f64) += rate where an expert's count in
/// chosen [E] f64 is below the mean, -= rate where it is above.
void steer(const Tensor& bias, const Tensor& chosen, double rate);

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

struct ChoiceScores {
  /// choice = scores + bias, -inf for the experts of the groups a token does not keep.
  static void cpu(const Tensor& choice, const Tensor& scores, const Tensor& bias, const PerToken& rule);
  static void cuda(const Tensor& choice, const Tensor& scores, const Tensor& bias, const PerToken& rule);

  /// The score of a group from those of its experts, at(0) ... at(n - 1).
  template <class T, class At>
  static constexpr T of_group(int64_t n, GroupScore rule, const At& at) {
    T best = -std::numeric_limits<T>::infinity(), second = best;
    for (int64_t i = 0; i < n; ++i) {
      const T v = at(i);
      if (v > best) {
        second = best;
        best = v;
      } else if (v > second) {
        second = v;
      }
    }
    return rule == GroupScore::max ? best : best + second;
  }
};

struct Steer {
  static void cpu(const Tensor& bias, const Tensor& chosen, double rate);
  static void cuda(const Tensor& bias, const Tensor& chosen, double rate);
};

struct FirstChoices {
  static void cpu(const Selection& first, const Tensor& expert, const Tensor& token_offsets);
  static void cuda(const Selection& first, const Tensor& expert, const Tensor& token_offsets);
};

struct DropOverCapacity {
  static void cpu(const Kept& kept, const Selection& chosen, const Tensor& scores, const Tensor& scope_offsets,
                  int64_t k, double factor, Drop rule);
  static void cuda(const Kept& kept, const Selection& chosen, const Tensor& scores, const Tensor& scope_offsets,
                   int64_t k, double factor, Drop rule);

  /// How many pairs of a scope an expert keeps.
  static constexpr double room(double factor, int64_t k, int64_t tokens, int64_t experts) {
    return factor * double(k) * double(tokens) / double(experts);
  }
};

}  // namespace agon
