#include "distributed/reduce.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "distributed/placement.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("reduce: shared gradients are summed over all ranks, those of experts over their replicas") {
  run_on_threads(4, [](Communicator& all) {
    const ExpertRanks ranks = make_expert_ranks(all, 2);  // groups {0, 1} and {2, 3}, replicas {0, 2} and {1, 3}
    Parameter shared({3}, Precision::fp32()), expert({2}, Precision::fp32());
    expert.group = Group::expert;
    fill(shared.grad, 1 + all.rank());
    fill(expert.grad, 10 * (1 + all.rank()));
    shared.has_grad = expert.has_grad = true;
    Parameter* both[] = {&shared, &expert};
    all_reduce_gradients(both, all, *ranks.replicas);
    for (float g : shared.grad.data<float>()) CHECK(g == 10);
    for (float g : expert.grad.data<float>()) CHECK(g == (all.rank() % 2 ? 60 : 40));
  });
}

TEST_CASE("reduce: a parameter without a gradient is an error, since its contents are undefined") {
  Parameter p({3}, Precision::fp32());
  p.name = "head";
  Parameter* one[] = {&p};
  const auto self = make_self_communicator();
  CHECK(message_of([&] { all_reduce_gradients(one, *self, *self); }).find("the parameter head has no gradient") !=
        std::string::npos);
}
