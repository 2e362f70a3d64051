#include "distributed/echo.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "distributed/placement.h"
#include "tests/support/cuda.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("echo: gives what ranks would that all do the same") {
  const auto comm = make_echo(3, {});
  CHECK(comm->rank() == 0);
  CHECK(comm->size() == 3);
  const Tensor t = there(tensor_of<float>({1, 2}));
  comm->all_reduce(t);
  CHECK(identical(t, tensor_of<float>({3, 6})));
  comm->broadcast(t, 1);
  CHECK(identical(t, tensor_of<float>({3, 6})));
  CHECK(identical(comm->all_gather(there(tensor_of<int32_t>({4, 5}))), tensor_of<int32_t>({4, 5, 4, 5, 4, 5})));
  CHECK(identical(comm->reduce_scatter(there(tensor_of<float>({1, 2, 3}))), tensor_of<float>({3})));
  comm->barrier();
}

DEVICE_CASE("echo: rows come as they went, and zeros where nothing did") {
  const auto comm = make_echo(3, {});
  const Tensor x = there(tensor_of<float>({1, 2, 3, 4, 5, 6})).reshape({6, 1});
  const int64_t rows[] = {1, 2, 3};
  CHECK(identical(comm->all_to_all(x, rows, rows), x));
  const int64_t more[] = {2, 1, 3};
  CHECK(identical(comm->all_to_all(x, rows, more), tensor_of<float>({1, 0, 2, 4, 5, 6}).reshape({6, 1})));
}

TEST_CASE("echo: its parts have the sizes it was made with") {
  const auto comm = make_echo(6, {2, 3});
  const ExpertRanks ranks = make_expert_ranks(*comm, 2);
  CHECK(ranks.group->size() == 2);
  CHECK(ranks.replicas->size() == 3);
  CHECK(message_of([&] { comm->split(0, 0); }).find("was made for 2 splits") != std::string::npos);
  CHECK(message_of([&] { make_echo(0, {}); }).find("at least one rank, got 0") != std::string::npos);
}

TEST_CASE("echo: counts what rank 0 of as many ranks counts, and refuses what they would") {
  std::map<Collective, Traffic> expected;
  const auto work = [](Communicator& comm) {
    comm.all_reduce(Tensor({7}, DType::f32).zero());
    comm.all_gather(Tensor({2, 3}, DType::f32).zero());
    comm.reduce_scatter(Tensor({9, 2}, DType::f64).zero());
    comm.broadcast(Tensor({4}, DType::i32).zero(), 0);
    const int64_t rows[] = {2, 2, 2};
    comm.all_to_all(Tensor({6, 5}, DType::f32).zero(), rows, rows);
    comm.barrier();
    return comm.traffic();
  };
  run_on_threads(3, [&](Communicator& threads) {
    const auto counted = work(threads);
    if (threads.rank() == 0) expected = counted;
  });
  const auto counted = work(*make_echo(3, {}));
  REQUIRE(counted.size() == expected.size());
  for (const auto& [operation, t] : expected) {
    CAPTURE(operation);
    CHECK(counted.at(operation).calls == t.calls);
    CHECK(counted.at(operation).sent == t.sent);
    CHECK(counted.at(operation).received == t.received);
  }
  const auto comm = make_echo(3, {});
  CHECK(message_of([&] { comm->reduce_scatter(Tensor({4}, DType::f32)); }).find("do not divide over 3 ranks") !=
        std::string::npos);
  CHECK(message_of([&] { comm->barrier(); }).find("do not divide") != std::string::npos);
}
