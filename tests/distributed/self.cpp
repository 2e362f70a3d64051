#include <doctest/doctest.h>

#include "core/copy.h"
#include "distributed/communicator.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("self: returns what it was given, without a copy") {
  const auto comm = make_self_communicator();
  CHECK(comm->rank() == 0);
  CHECK(comm->size() == 1);
  const Tensor x = tensor_of<float>({1, 2, 3}).reshape({3, 1});
  const int64_t three[] = {3};
  CHECK(comm->all_to_all(x, three, three).address() == x.address());
  CHECK(comm->all_gather(x).address() == x.address());
  CHECK(comm->reduce_scatter(x).address() == x.address());
  comm->all_reduce(x);
  comm->broadcast(x, 0);
  comm->barrier();
  CHECK(x.data<float>()[2] == 3);
  CHECK(comm->split(7, 3)->size() == 1);
  CHECK(comm->start_all_reduce(x)->finish().address() == x.address());
  CHECK(comm->start_reduce_scatter(x)->finish().address() == x.address());
}

TEST_CASE("self: refuses what several ranks would refuse, then everything") {
  const Tensor x({3, 1}, DType::f32);
  const int64_t two[] = {2}, three[] = {3};
  CHECK(message_of([&] { make_self_communicator()->all_to_all(x, two, two); }).find("[3, 1] with send_rows {2}") !=
        std::string::npos);
  CHECK(message_of([&] {
          make_self_communicator()->all_to_all(x, three, two);
        }).find("sends 3 rows to rank 0, which expects 2") != std::string::npos);
  CHECK(message_of([&] { make_self_communicator()->broadcast(x, 1); }).find("named root 1 of 1") != std::string::npos);
  CHECK(message_of([&] { make_self_communicator()->all_reduce(Tensor()); }).find("empty tensor") != std::string::npos);
  const auto comm = make_self_communicator(), part = comm->split(0, 0);
  part->abort("enough");
  CHECK(message_of([&] { comm->barrier(); }).find("barrier failed: enough") != std::string::npos);
}
