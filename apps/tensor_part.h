#pragma once
#include <optional>
#include <string>

#include "core/tensor.h"

namespace agon {

/// The elements first ... first + tensor.size(), in row-major order, of a tensor of shape `whole`: all of it by
/// default.
struct TensorPart {
  std::string name;
  Tensor tensor;
  int64_t first = 0;
  std::optional<Shape> whole = {};  ///< none: the shape of `tensor`
};

/// The part with its `whole` filled in. Error where there is no tensor, or it reaches beyond the whole.
TensorPart resolved(TensorPart part);

}  // namespace agon
