#include "distributed/communicator.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "core/copy.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("communicator: a started call ends with what the call that waits gives") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const int n = comm.size();
    const Tensor a = tensor_of<float>({1, 2}), b({2 * n, 1}, DType::f32);
    fill(b, comm.rank() + 1);
    const auto first = comm.start_all_reduce(a), second = comm.start_reduce_scatter(b);
    comm.progress();
    const Tensor sum = first->finish(), block = second->finish();
    CHECK(sum.address() == a.address());
    CHECK(a.data<const float>()[1] == float(2 * n));
    CHECK(block.shape() == Shape{2, 1});
    CHECK(block.data<const float>()[0] == float(n * (n + 1) / 2));
  });
}

TEST_CASE("communicator: counts the bytes that go to and come from other ranks") {
  on_every_kind(3, [](Communicator& comm) {
    const Tensor x({3, 4}, DType::f32);  // 16 bytes a row
    fill(x, 1);
    const std::vector<int64_t> one(3, 1);
    comm.all_to_all(x, one, one);
    comm.all_reduce(x);
    comm.all_gather(x);
    comm.reduce_scatter(x);
    comm.broadcast(x, 0);
    const auto traffic = comm.traffic();
    const auto moved = [&](Collective c) { return std::pair(traffic.at(c).sent, traffic.at(c).received); };
    CHECK(moved(Collective::all_to_all) == std::pair<int64_t, int64_t>(32, 32));
    CHECK(moved(Collective::all_reduce) == std::pair<int64_t, int64_t>(64, 64));
    CHECK(moved(Collective::all_gather) == std::pair<int64_t, int64_t>(96, 96));
    CHECK(moved(Collective::reduce_scatter) == std::pair<int64_t, int64_t>(32, 32));
    CHECK(traffic.at(Collective::broadcast).sent == (comm.rank() == 0 ? 96 : 0));
    CHECK(traffic.at(Collective::broadcast).received == (comm.rank() == 0 ? 0 : 48));
    CHECK(traffic.at(Collective::all_to_all).calls == 1);
    CHECK(comm.host(comm.rank()) != "");
  });
}

TEST_CASE("communicator: the time waited for ranks is part of the time in calls") {
  on_every_kind(3, [](Communicator& comm) {
    for (int i = 0; i < 10; ++i) comm.barrier();
    const std::vector<double> waited = comm.waited_for();
    REQUIRE(waited.size() == 3);
    CHECK(waited[size_t(comm.rank())] == 0);
    const Traffic traffic = comm.traffic().at(Collective::barrier);
    CHECK(traffic.calls == 10);
    CHECK(traffic.waited >= *std::ranges::max_element(waited));
    CHECK(traffic.seconds >= traffic.waited);
  });
}
