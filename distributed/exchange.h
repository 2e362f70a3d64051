#pragma once
#include <vector>

#include "distributed/communicator.h"

namespace agon {

/// How rows travel between ranks: the section [parallel] of a config, as far as a layer is concerned.
struct ExchangeOptions {
  bool bounded = false;  // a fixed number of rows from rank to rank; what does not fit is dropped
  double bound = 2;      // bounded: that number over what even routing would send
  bool bf16 = false;     // f32 rows are rounded to bf16 on their way
  bool own_too = false;  // rows of the own rank take the way of the others': for tests of what carries them
};

/// Rows move between ranks: send_rows[r] rows of x go to rank r, receive_rows[r] come from it; x [sum(send_rows), ...]
/// -> [sum(receive_rows), ...], by source rank. With `bf16` rows of f32 travel as bf16 and come out as f32, rounded
/// once.
Tensor exchange(const Tensor& x, const std::vector<int64_t>& send_rows, const std::vector<int64_t>& receive_rows,
                Communicator& comm, bool bf16 = false);

}  // namespace agon
