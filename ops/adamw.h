#pragma once
#include <span>

#include "autograd/parameter.h"

namespace agon {

/// AdamW (Loshchilov & Hutter, arXiv 1711.05101): m = β1 m + (1-β1) g; v = β2 v + (1-β2) g²;
/// w -= rate * (m̂ / (sqrt(v̂) + ε) + decay * w), where m̂ and v̂ are corrected for their start at 0.
struct AdamWOptions {
  double rate = 1e-3, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, decay = 0.1;
  double gradient_scale = 1;  // gradients are multiplied by it first: clipping
  int64_t step = 1;           // counts from 1
};

/// First and second moments of one parameter, in the dtype of its master, zero at first.
struct Moments {
  Tensor first, second;
};

/// Updates each master from its grad and moments, refreshes the values, and marks the gradients as taken. Decay applies
/// to parameters with `decays`. f32 arithmetic (f64 for f64).
void adamw(std::span<Parameter* const> parameters, std::span<Moments> moments, const AdamWOptions& options);

struct AdamW {
  /// One parameter; `decay` is that of the options or 0.
  struct Update {
    static void cpu(const Parameter& parameter, const Moments& moments, const AdamWOptions& options, double decay);
  };
};

}  // namespace agon
