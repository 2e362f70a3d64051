#pragma once
#include "core/tensor.h"

namespace agon {

/// y[t] = table[token[t]]: table [V, D], token [T] i32 -> [T, D]. The gradient sums equal tokens in the order of t.
/// Throws UserError when a token is not in [0, V).
Tensor embedding(const Tensor& table, const Tensor& token);

}  // namespace agon
