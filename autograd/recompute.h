#pragma once
#include <functional>
#include <span>
#include <vector>

#include "autograd/tape.h"

namespace agon {

/// y = f(inputs), keeping only the inputs: the backward pass runs f again, records it, and goes on through it. f must
/// return the same values both times; what it must not do twice (a routing decision, a random draw without a key) belongs
/// among its inputs. Parameters f uses may be captured.
Tensor recompute(std::function<Tensor(std::span<const Tensor>)> f, std::vector<Tensor> inputs);

}  // namespace agon
