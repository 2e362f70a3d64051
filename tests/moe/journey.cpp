#include "moe/journey.h"

#include <doctest/doctest.h>

#include <set>

#include "moe/dispatch.h"
#include "tests/moe/journey_steps.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The sum of a number over the ranks.
double summed(double value, Communicator& comm) {
  const Tensor t = tensor_of<double>({value});
  comm.all_reduce(t);
  return t.item();
}

}  // namespace

TEST_CASE(
    "journey: ranks equal one, outputs, losses, statistics and all gradients, for every setting and the toy, experts "
    "spread over two, four, and two of four ranks") {
  for (const LayerCase& c : layer_cases(kExperts)) {
    CAPTURE(c.name);
    const Outcome one = step(c, {});
    double largest = 0;
    for (const auto& [name, gradient] : one.gradients) largest = std::max(largest, dot(gradient, gradient));
    CHECK(largest > 0);
    for (const Layout& many :
         {Layout{.ranks = 2}, {.ranks = 4}, {.ranks = 4, .spread = 2}, {.ranks = 4, .spread = 1}}) {
      CAPTURE(many.ranks);
      CAPTURE(many.spread);
      check_equal(step(c, many), one);
    }
  }
}

TEST_CASE("journey: ranks whose experts get no row") {
  for (const LayerCase& c : layer_cases(kExperts)) {
    if (c.name != "defaults" && c.name != "everything") continue;
    CAPTURE(c.name);
    const Outcome one = step(c, {.starve = true});
    CHECK(one.load.data<double>()[6] + one.load.data<double>()[7] == 0);
    check_equal(step(c, {.ranks = 4, .starve = true}), one);
  }
}

TEST_CASE(
    "journey: a token's row goes once to each other rank that has experts of its, own tokens lie before what came, and "
    "sums come home") {
  run_on_threads(4, [](Communicator& comm) {
    const int64_t tokens = comm.rank() == 2 ? 0 : 7 + comm.rank(), D = 3;
    const auto seed = uint64_t(comm.rank());
    const RandomPairs chosen = random_pairs(tokens, kExperts, 20 + seed, 4);
    Pairs pairs;
    pairs.expert = chosen.expert;
    pairs.token_offsets = chosen.token_offsets;
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, kExperts);
    const Journey journey(pairs, plan, kExperts, comm);
    const Tensor x = random({tokens, D}, 30 + seed), weight = random({pairs.expert.size()}, 40 + seed);

    const auto offset = pairs.token_offsets.data<const int32_t>(), expert = pairs.expert.data<const int32_t>();
    double visits = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      std::set<int32_t> ranks;
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) ranks.insert(expert[i] / 2);
      ranks.erase(comm.rank());
      visits += double(ranks.size());
    }
    const Tensor arrived = journey.out(x), arrived_weight = journey.out_weight(weight);
    check(identical(slice(arrived, 0, tokens), x), "the own tokens");
    check(summed(double(arrived.shape(0) - tokens), comm) == summed(visits, comm), "rows that came");
    check(summed(double(journey.plan().offsets.data<int32_t>().back()), comm) == summed(offset[tokens], comm),
          "pairs that arrived");
    check(journey.dropped() == 0, "dropped");

    // With experts that answer what they are asked, the layer is a weighted sum of copies.
    const Tensor rows = permute(arrived, journey.plan());
    const Tensor y = journey.home(combine(rows, arrived_weight, journey.plan()));
    check(tokens == 0 || relative_error(y, combine(permute(x, plan), weight, plan)) < 1e-14, "sums");
    check(identical(journey.rows_home(rows), permute(x, plan)), "rows, uncombined");
  });
}

TEST_CASE("journey: one rank moves nothing") {
  const auto self = make_self_communicator();
  const RandomPairs chosen = random_pairs(5, 4, 1);
  Pairs pairs;
  pairs.expert = chosen.expert;
  pairs.token_offsets = chosen.token_offsets;
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
  const Journey journey(pairs, plan, 4, *self);
  const Tensor x = random({5, 3}, 1);
  CHECK(journey.out(x).id() == x.id());
  CHECK(journey.home(x).id() == x.id());
  CHECK(journey.out_weight(x).id() == x.id());
  CHECK(journey.rows_home(x).id() == x.id());
  CHECK(journey.plan().pair_of_row.id() == plan.pair_of_row.id());
}

GPU_CASE("journey: on one rank nothing moves and nothing is read") {
  const auto self = make_self_communicator();
  const RandomPairs chosen = random_pairs(9, 4, 3, 5);
  Pairs pairs;
  pairs.expert = there(chosen.expert);
  pairs.token_offsets = there(chosen.token_offsets);
  const Tensor x = there(random({9, 6}, 1, 1, DType::f32)),
               weight = there(random(pairs.expert.shape(), 2, 1, DType::f32));
  const Crossings before = crossings();
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
  const Journey journey(pairs, plan, 4, *self);
  CHECK(journey.plan().pair_of_row.id() == plan.pair_of_row.id());
  CHECK(journey.out(x).id() == x.id());
  CHECK(journey.out_weight(weight).id() == weight.id());
  CHECK(journey.home(x).id() == x.id());
  CHECK(journey.rows_home(x).id() == x.id());
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
}
