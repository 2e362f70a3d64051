#include "distributed/exchange.h"

#include "core/copy.h"

namespace agon {

Tensor exchange(const Tensor& x, const std::vector<int64_t>& send_rows, const std::vector<int64_t>& receive_rows,
                Communicator& comm, bool bf16) {
  if (!bf16 || x.dtype() != DType::f32) return comm.all_to_all(x, send_rows, receive_rows);
  return converted(comm.all_to_all(converted(x, DType::bf16), send_rows, receive_rows), DType::f32);
}

}  // namespace agon
