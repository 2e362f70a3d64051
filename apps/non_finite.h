#pragma once
#include <string>

#include "apps/model.h"

namespace agon {

// Where a number that is not finite first appears, in words; "" where nowhere. All wait for the device.

/// "parameter blocks.0.attention.query.weight".
std::string non_finite_parameter(LanguageModel& model);

/// Of what a pass makes up to the hidden state.
struct NonFinite {
  int after = 0;      // outputs that were finite
  std::string where;  // "output of blocks.3.feed_forward"
};
/// Collective over the ranks the experts are spread over and those of context.everyone.
NonFinite non_finite_output(LanguageModel& model, const Sequences& at, const RouterContext& context);

/// What a rank found, of all ranks the earliest, and then the first: " on rank 2" added where there are several. The
/// same on all ranks. Collective.
std::string earliest(const NonFinite& here, Communicator& all);

}  // namespace agon
