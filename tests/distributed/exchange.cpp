#include "distributed/exchange.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/support/gradient.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kWidth = 3, kRowsPerRank = 6;

/// Rows rank `from` sends to rank `to`: some of them none, and rank 1 none at all, in a world of `size`.
std::vector<int64_t> sends(int from, int size) {
  std::vector<int64_t> n(size_t(size), 0);
  if (from == 1) return n;
  for (int64_t row = 0; row < kRowsPerRank; ++row) ++n[size_t((row * row + from) % size)];
  return n;
}

std::vector<int64_t> receives(int to, int size) {
  std::vector<int64_t> n;
  for (int from = 0; from < size; ++from) n.push_back(sends(from, size)[size_t(to)]);
  return n;
}

int64_t total(const std::vector<int64_t>& n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

Tensor rows_of(int rank, int size, DType dtype) {
  return random({total(sends(rank, size)), kWidth}, uint64_t(rank) + 1, 1, dtype);
}

}  // namespace

TEST_CASE("exchange: rows come by source rank, and there and back is the identity") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const int ranks = comm.size();
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const bool bf16 : {false, true}) {
        if (bf16 && dtype == DType::f32) continue;  // below: it rounds them
        const auto send = sends(comm.rank(), ranks), receive = receives(comm.rank(), ranks);
        const Tensor x = rows_of(comm.rank(), ranks, dtype), arrived = exchange(x, send, receive, comm, bf16);
        check(arrived.shape() == Shape{total(receive), kWidth} && arrived.dtype() == dtype, "what has arrived");
        int64_t row = 0;
        for (int from = 0; from < ranks; ++from) {
          const auto sent = sends(from, ranks);
          const int64_t first = std::accumulate(sent.begin(), sent.begin() + comm.rank(), int64_t(0));
          const Tensor theirs = converted(rows_of(from, ranks, dtype), DType::f64),
                       here = converted(arrived, DType::f64);
          for (int64_t i = 0; i < receive[size_t(from)] * kWidth; ++i)
            check(here.data<double>()[size_t(row * kWidth + i)] == theirs.data<double>()[size_t(first * kWidth + i)],
                  "row ", row, " is not of rank ", from);
          row += receive[size_t(from)];
        }
        check(identical(exchange(arrived, receive, send, comm, bf16), x), "there and back");
      }
  });
}

TEST_CASE("exchange: f32 rows travel as bf16 where they are told to, rounded once, in half the bytes") {
  run_on_threads(3, [](Communicator& comm) {
    const auto send = sends(comm.rank(), 3), receive = receives(comm.rank(), 3);
    const Tensor x = rows_of(comm.rank(), 3, DType::f32);
    const Tensor whole = exchange(x, send, receive, comm);
    const int64_t bytes = comm.traffic()[Collective::all_to_all].sent;
    const Tensor rounded = exchange(x, send, receive, comm, true);
    check(2 * (comm.traffic()[Collective::all_to_all].sent - bytes) == bytes, "bytes that crossed");
    check(identical(rounded, converted(converted(whole, DType::bf16), DType::f32)), "rows as bf16 has them");
    check(whole.size() == 0 || !identical(rounded, whole), "rows that needed no rounding");
  });
}
