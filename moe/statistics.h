#pragma once
#include "moe/router.h"

namespace agon {

/// Figures of one call without gradient, from what was chosen and probabilities [T, E] (rows that sum to 1). Scalars:
///   dropped            share of the chosen pairs that a capacity dropped
///   experts_per_token  mean number of pairs of a token, after dropping
///   tokens_with_N      share of the tokens with N experts, for the N that occur
///   entropy            mean over tokens of the entropy of the probabilities, nats
///   margin             mean gap between the k-th and the (k+1)-th largest probability, k the number of the token's
///   experts
///                      before dropping; absent when every token has none or all
/// and those of load_figures. Means over tokens: weighed by tokens they add up over micro-batches and ranks.
Statistics describe(const Pairs& pairs, const Tensor& probabilities);

/// How even a load [E] f64 is: load_entropy (over log E: 1 is even), load_max (max / mean), dead (experts without a
/// pair), fairness (Jain: 1 is even), load_cv2 (variance / mean²). For all ranks and micro-batches, sum their loads
/// first.
std::map<std::string, double> load_figures(const Tensor& load);

}  // namespace agon
