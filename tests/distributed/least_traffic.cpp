#include "distributed/least_traffic.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("least traffic: what every kind of ranks counts for every call") {
  for (int n = 1; n <= 4; ++n)
    on_every_kind(n, [](Communicator& comm) {
      const int ranks = comm.size(), me = comm.rank();
      std::map<Collective, Traffic> expected;
      const auto expect = [&](const Call& call, int64_t all_rows = 0) {
        const Traffic more = least_traffic(call, me, ranks, all_rows);
        Traffic& sum = expected[call.operation];
        sum.calls += more.calls;
        sum.sent += more.sent;
        sum.received += more.received;
      };
      const std::map<Collective, Traffic> before = comm.traffic();
      for (const int64_t size : {0, 1, 7, 12}) {
        const Tensor t = Tensor({size}, DType::bf16).zero(), blocks = Tensor({size * ranks, 3}, DType::f32).zero(),
                     rows = Tensor({size + me, 2}, DType::f64).zero();
        expect({.operation = Collective::all_reduce, .tensor = &t});
        comm.all_reduce(t);
        expect({.operation = Collective::broadcast, .tensor = &t, .root = ranks - 1});
        comm.broadcast(t, ranks - 1);
        expect({.operation = Collective::reduce_scatter, .tensor = &blocks});
        comm.reduce_scatter(blocks);
        expect({.operation = Collective::all_gather, .tensor = &rows}, size * ranks + ranks * (ranks - 1) / 2);
        comm.all_gather(rows);
        std::vector<int64_t> send, receive;
        int64_t leaving = 0;
        for (int r = 0; r < ranks; ++r) {
          send.push_back(size * me + r);
          receive.push_back(size * r + me);
          leaving += send.back();
        }
        const Tensor x = Tensor({leaving, 5}, DType::i32).zero();
        expect({.operation = Collective::all_to_all, .tensor = &x, .send_rows = send, .receive_rows = receive});
        comm.all_to_all(x, send, receive);
      }
      comm.barrier();
      const std::map<Collective, Traffic> after = comm.traffic();
      for (const auto& [operation, t] : expected) {
        CAPTURE(operation);
        const Traffic start = before.contains(operation) ? before.at(operation) : Traffic{};
        CHECK(after.at(operation).calls - start.calls == t.calls);
        CHECK(after.at(operation).sent - start.sent == t.sent);
        CHECK(after.at(operation).received - start.received == t.received);
      }
    });
}
