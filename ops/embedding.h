#pragma once
#include "core/tensor.h"

namespace agon {

/// y[t] = table[token[t]]: table [V, D], token [T] i32 -> [T, D]. The gradient sums equal tokens in the order of t.
/// Throws UserError when a token is not in [0, V); on a GPU, where nothing can be thrown, its row is NaN and no
/// gradient comes of it.
Tensor embedding(const Tensor& table, const Tensor& token);

struct Embedding {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& table, const Tensor& token);
    static void cuda(const Tensor& y, const Tensor& table, const Tensor& token);
  };
  /// dtable[v] = the sum of dy[t] over t with token[t] = v, added to what is there or written over it.
  struct Backward {
    static void cpu(const Tensor& dtable, bool add, const Tensor& dy, const Tensor& token);
    static void cuda(const Tensor& dtable, bool add, const Tensor& dy, const Tensor& token);
  };
};

}  // namespace agon
