#include "distributed/least_traffic.h"

#include <algorithm>
#include <numeric>

namespace agon {

Traffic least_traffic(const Call& call, int rank, int size, int64_t all_rows) {
  Traffic moved{.calls = 1};
  if (!call.tensor) return moved;
  const Tensor& t = *call.tensor;
  const int64_t others = size - 1, row = t.shape().rank() ? t.shape().with(0, 1).size() * size_of(t.dtype()) : 0;
  switch (call.operation) {
    case Collective::all_to_all: {
      const int64_t own = call.send_rows[size_t(rank)] * row;
      moved.sent = t.bytes() - own;
      moved.received = std::accumulate(call.receive_rows.begin(), call.receive_rows.end(), int64_t(0)) * row - own;
      break;
    }
    case Collective::all_reduce: {
      const int64_t slice = (t.size() + size - 1) / size, begin = std::min(t.size(), rank * slice);
      const int64_t own = (std::min(t.size(), begin + slice) - begin) * size_of(t.dtype());
      moved.sent = moved.received = t.bytes() - own + others * own;
      break;
    }
    case Collective::broadcast:
      (call.root == rank ? moved.sent : moved.received) = call.root == rank ? others * t.bytes() : t.bytes();
      break;
    case Collective::all_gather:
      moved.sent = others * t.bytes();
      moved.received = all_rows * row - t.bytes();
      break;
    case Collective::reduce_scatter:
      moved.sent = t.bytes() - t.bytes() / size;
      moved.received = others * (t.bytes() / size);
      break;
    case Collective::barrier:
    case Collective::split:
    case Collective::end:
      break;
  }
  return moved;
}

}  // namespace agon
