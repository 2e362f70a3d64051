#pragma once
#include <cstdint>
#include <limits>

#include "core/tensor.h"

namespace agon {

/// Rows of two tensors of the same width and dtype, named by one number: n >= 0 is row n of the first, ~n < 0 row n of
/// the second. What has come from other ranks and what never left this one are such a pair.
struct TwoSources {
  static constexpr int32_t kNone = std::numeric_limits<int32_t>::min();  // a row of zeros

  /// y[n] = row index[n]: y [n, D] or [n], any float dtype. A source that no number names may be empty.
  struct Gather {
    static void cpu(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index);
    static void cuda(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index);
  };
  /// y[t] = the sum of the rows index[offsets[t]] ... index[offsets[t+1] - 1], in that order, rounded once; a row alone
  /// keeps its bits. offsets [T+1] i32 for y [T, D].
  struct Sum {
    static void cpu(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index,
                    const Tensor& offsets);
    static void cuda(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index,
                     const Tensor& offsets);
  };
};

}  // namespace agon
