#pragma once
#include "moe/selection.h"
#include "moe/thresholds.h"

// Choosing from a pool: tokens compete with each other, so a token may get any number of experts.

namespace agon {

/// The options of strategies whose tokens compete.
struct PoolOptions {
  std::string scope = "batch";  // batch: a routing group | sequence | time_step
  double threshold_decay = 0.99;

  void visit(OptionVisitor& v);
};

/// Every expert takes, in every scope, the tokens of its largest scores: C_i = spread_budget(k / E) of them. scores
/// [T, E] f32 (f64); ties to the earlier token. A token's pairs are ordered by score, ties to the lower expert, in all
/// of these. On a GPU NaN ranks below everything; on the CPU nobody may ask: see check_scores.
Selection select_per_expert(const Tensor& scores, const Scopes& scopes, double k);

/// Every scope takes the pairs of its largest scores: N_i = spread_budget(k); ties to the lower flat index t E + e. The
/// optimum of max Σ S x, 0 <= x <= 1, Σ x <= N (USMoE, arXiv 2503.22996).
Selection select_global(const Tensor& scores, const Scopes& scopes, double k);

/// The pairs whose score is at least the threshold of their expert, [E], or of all, [1]. On a GPU N = T E, a bound.
Selection select_reaching(const Tensor& scores, const Tensor& threshold);

/// Who takes.
enum class Taker { expert, scope };

/// In training and in evaluation that may look ahead: the rule of `taker` within the scopes of the options. In causal
/// evaluation: what reaches the thresholds; UserError naming the layer when they are not known.
Selection select_from_pool(const Tensor& scores, Taker taker, double k, int64_t group, const PoolOptions& options,
                           const Thresholds& thresholds, const RouterContext& context);

// Kernels. chosen [T, E] u8: 1 where a pair is chosen.

struct MarkPerExpert {
  static void cpu(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget);
  static void cuda(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget);
};

struct MarkGlobal {
  static void cpu(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget);
  static void cuda(const Tensor& chosen, const Tensor& scores, const Scopes& scopes, const Tensor& budget);
};

struct MarkReaching {
  static void cpu(const Tensor& chosen, const Tensor& scores, const Tensor& threshold);
  static void cuda(const Tensor& chosen, const Tensor& scores, const Tensor& threshold);
};

struct ChosenPairs {
  /// token_offsets [T+1] of the chosen; `most` of them becomes their number where the host can see it.
  struct Offsets {
    static void cpu(int64_t& most, const Tensor& offsets, const Tensor& chosen);
    static void cuda(int64_t& most, const Tensor& offsets, const Tensor& chosen);
  };
  struct Experts {
    static void cpu(const Tensor& expert, const Tensor& offsets, const Tensor& chosen, const Tensor& scores);
    static void cuda(const Tensor& expert, const Tensor& offsets, const Tensor& chosen, const Tensor& scores);
  };
};

}  // namespace agon
