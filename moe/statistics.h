#pragma once
#include "moe/router.h"

namespace agon {

/// Figures of one call without gradient, from what was chosen and probabilities [T, E] (rows that sum to 1):
///   dropped            share of the chosen pairs that a capacity dropped
///   experts_per_token  mean number of pairs of a token, after dropping
///   tokens_with_N      share of the tokens with N experts, for the N that occur
///   entropy            mean over tokens of the entropy of the probabilities, nats
///   margin             mean gap between the k-th and the (k+1)-th largest probability, k the number of the token's
///                      experts before dropping; absent when every token has none or all
/// and those of load_figures; of no tokens only these and `dropped`. Means over tokens: weighed by tokens they add up
/// over micro-batches and ranks.
Statistics describe(const Pairs& pairs, const Tensor& probabilities);

/// Appends value / divisor under this name: value [1] f32 (f64) on the device of the other figures. Nothing waits.
void add_figure(Statistics& statistics, const std::string& name, const Tensor& value, double divisor = 1);

/// How even a load [E] f64 on the CPU is: load_entropy (over log E: 1 is even), load_max (max / mean), dead (experts
/// without a pair), fairness (Jain: 1 is even), load_cv2 (variance / mean²). For all ranks and micro-batches, sum their
/// loads first.
std::map<std::string, double> load_figures(const Tensor& load);

struct AddFigure {
  /// to[i] = from[i], and, last, value[0] / divisor.
  static void cpu(const Tensor& to, const Tensor& from, const Tensor& value, double divisor);
  static void cuda(const Tensor& to, const Tensor& from, const Tensor& value, double divisor);
};

struct Describe {
  /// Where each figure is among the values of describe(); tokens_with_0 to tokens_with_E come last.
  enum Figure {
    kLoadEntropy,
    kLoadMax,
    kDead,
    kFairness,
    kLoadVariation,
    kDropped,
    kExpertsPerToken,
    kEntropy,
    kMargin,
    kTokensWith
  };
  /// values [kTokensWith + E + 1] f64.
  static void cpu(const Tensor& values, const Tensor& load, const Tensor& chosen, const Tensor& probabilities,
                  const Tensor& token_offsets, const Tensor& chosen_offsets);
  static void cuda(const Tensor& values, const Tensor& load, const Tensor& chosen, const Tensor& probabilities,
                   const Tensor& token_offsets, const Tensor& chosen_offsets);
};

}  // namespace agon
