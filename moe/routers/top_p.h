#pragma once
#include "moe/selection.h"

// The kernels of top-p routing; the strategy is in top_p.cpp.

namespace agon {

struct SelectTopP {
  /// Of the experts `best` [T, most], each token's first ones until their probabilities [T, E] reach p.
  static void cpu(const Selection& selection, const Tensor& probabilities, const Tensor& best, double p);
  static void cuda(const Selection& selection, const Tensor& probabilities, const Tensor& best, double p);
};

/// The entropy of softmax(z) of each token, nats: z [T, E] f32 (f64) -> [T]. Made of the logits, because a probability
/// that underflows to 0 has no logarithm.
struct TokenEntropy {
  /// h = Σ_e p_e (lse - z_e).
  struct Forward {
    static void cpu(const Tensor& h, const Tensor& z);
    static void cuda(const Tensor& h, const Tensor& z);
  };
  /// dz_e = dh p_e ((lse - z_e) - h).
  struct Backward {
    static void cpu(const Tensor& dz, const Tensor& dh, const Tensor& h, const Tensor& z);
    static void cuda(const Tensor& dz, const Tensor& dh, const Tensor& h, const Tensor& z);
  };
};

}  // namespace agon
