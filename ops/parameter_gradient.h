#pragma once
#include "autograd/tape.h"

namespace agon {

/// Calls write(dp, add) with the place where the gradient of p belongs, if it is wanted: the parameter's own `grad` (to
/// be added to, or written over entirely), else a new tensor of p's dtype. dp has the shape of p.
template <class F>
void give_gradient(Gradients& g, const Tensor& p, F&& write) {
  if (!g.wants(p)) return;  // never of an empty tensor
  if (g.owns(p)) {
    const auto [grad, add] = g.target(p);
    write(grad.reshape(p.shape()), add);
  } else {
    const Tensor dp(p.shape(), p.dtype(), p.device());
    write(dp, false);
    g.add(p, dp);
  }
}

}  // namespace agon
