#pragma once
#include "core/tensor.h"

namespace agon {

/// to[at + i] = from[first + i] for the `count` elements i, in row-major order, on the device of both. Floats of any
/// two dtypes, rounded once; no gradient. Throws Error where either tensor has fewer elements.
void copy_part(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count);

struct CopyPart {
  static void cpu(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count);
  static void cuda(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count);
};

}  // namespace agon
