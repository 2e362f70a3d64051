#pragma once
#include "core/tensor.h"

// Differentiable weights of chosen pairs (expert [N] i32, token_offsets [T+1] i32 as in Pairs), from scores in f32
// (f64). Entries past the last pair are 0.

namespace agon {

/// How a weight is made of a score: as it is, over the sum of the token's chosen ones, or over the sum of all of them.
enum class WeightRule { raw, over_selected, over_all };

/// Each pair's score: scores [T, E] -> [N].
Tensor gather_scores(const Tensor& scores, const Tensor& expert, const Tensor& token_offsets);
/// Divided by the sum over the token's pairs plus `guard`: values [N] -> [N].
Tensor over_selected(const Tensor& values, const Tensor& token_offsets, double guard = 0);
/// Scores [T, E] -> weights [N] by the rule; `guard` is added to what is divided by.
Tensor weights_of(const Tensor& scores, WeightRule rule, const Tensor& expert, const Tensor& token_offsets,
                  double guard = 0);
/// Softmax over the token's pairs: values [N] -> [N].
Tensor softmax_selected(const Tensor& values, const Tensor& token_offsets);
/// Divided by the sum over the row plus `guard`: scores [T, E] -> [T, E].
Tensor over_all(const Tensor& scores, double guard = 0);
/// scores with the chosen pairs' entries replaced: scores [T, E], values [N] -> [T, E]. Both get their gradients.
Tensor with_values(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets);
/// y[i] = values[pair[i]], 0 where pair[i] is -1; no pair occurs twice: values [N], pair [N] i32 -> [N].
Tensor kept_values(const Tensor& values, const Tensor& pair);

struct GatherScores {
  struct Forward {
    static void cpu(const Tensor& values, const Tensor& scores, const Tensor& expert, const Tensor& token_offsets);
    static void cuda(const Tensor& values, const Tensor& scores, const Tensor& expert, const Tensor& token_offsets);
  };
  struct Backward {
    static void cpu(const Tensor& dscores, const Tensor& dvalues, const Tensor& expert, const Tensor& token_offsets);
    static void cuda(const Tensor& dscores, const Tensor& dvalues, const Tensor& expert, const Tensor& token_offsets);
  };
};

/// Shares of segments [offsets[t], offsets[t+1]) of a list; sums [T] are theirs and the guard.
struct Shares {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& sums, const Tensor& x, const Tensor& offsets, double guard);
    static void cuda(const Tensor& y, const Tensor& sums, const Tensor& x, const Tensor& offsets, double guard);
  };
  /// dx_i = (dy_i - <dy, y>) / sum: the same for any segment, the guard is in the sum.
  struct Backward {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& sums, const Tensor& offsets);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& sums, const Tensor& offsets);
  };
};

struct SoftmaxSelected {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& offsets);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& offsets);
  };
  /// dx_i = y_i (dy_i - <dy, y>).
  struct Backward {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& offsets);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& y, const Tensor& offsets);
  };
};

/// scores[t, e] of the chosen pairs become values (zeros where there are none).
struct ReplaceScores {
  static void cpu(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets);
  static void cuda(const Tensor& scores, const Tensor& values, const Tensor& expert, const Tensor& token_offsets);
};

struct KeptValues {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& x, const Tensor& pair);
    static void cuda(const Tensor& y, const Tensor& x, const Tensor& pair);
  };
  struct Backward {
    static void cpu(const Tensor& dx, const Tensor& dy, const Tensor& pair);
    static void cuda(const Tensor& dx, const Tensor& dy, const Tensor& pair);
  };
};

}  // namespace agon
