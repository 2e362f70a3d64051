#pragma once
#include <vector>

#include "distributed/communicator.h"

namespace agon {

/// Rows move between ranks: send_rows[r] rows of x go to rank r, receive_rows[r] come from it; x [sum(send_rows), D] ->
/// [sum(receive_rows), D], by source rank. Differentiable: the backward pass is the exchange the other way round, so
/// all ranks must run it at the same place of their backward passes.
Tensor exchange(const Tensor& x, std::vector<int64_t> send_rows, std::vector<int64_t> receive_rows, Communicator& comm);

}  // namespace agon
