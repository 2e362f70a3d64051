#pragma once
#include "core/tensor.h"

namespace agon {

/// For each row of scores [T, E] (f32 or f64) the k largest, largest first, ties to the lower index: [T, k] i32. NaN
/// ranks below everything, also below -inf. No gradient: integers.
Tensor top_k(const Tensor& scores, int64_t k);

struct TopK {
  struct Forward {
    static void cpu(const Tensor& index, const Tensor& scores);
    static void cuda(const Tensor& index, const Tensor& scores);
  };
};

}  // namespace agon
