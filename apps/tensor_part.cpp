#include "apps/tensor_part.h"

#include "apps/safetensors_header.h"

namespace agon {

TensorPart resolved(TensorPart part) {
  check(bool(part.tensor), "tensor ", in_quotes(part.name), " is none");
  if (!part.whole) part.whole = part.tensor.shape();
  const int64_t count = part.tensor.size(), all = part.whole->size();
  check(part.first >= 0 && count <= all && part.first <= all - count, "tensor ", in_quotes(part.name),
        ": a part of elements ", part.first, " to ", part.first + count, " of ", *part.whole, ", which has ", all);
  return part;
}

}  // namespace agon
