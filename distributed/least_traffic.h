#pragma once
#include "distributed/call.h"

namespace agon {

/// The bytes of its tensor that a call has to move from rank `rank` of `size` to the others, and from them to it, one
/// call. `all_rows`: those that all_gather returns. A sum takes everybody's values of a slice to one rank and its sums
/// to everybody.
Traffic least_traffic(const Call& call, int rank, int size, int64_t all_rows = 0);

}  // namespace agon
