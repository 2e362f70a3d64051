#include "moe/router.h"

#include <doctest/doctest.h>

#include "tests/moe/layers.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// A strategy's router in f32 on the CPU and one with the same gate on the GPU.
struct Twins {
  std::unique_ptr<Router> here, there;

  explicit Twins(const RouterOptions& options, int64_t experts) {
    const RouterSize size{kWidth, experts, Precision::fp32(), 1};
    here = options.make(size);
    there = options.make(size);
    fill_parameters(*here, 3);
    fill_parameters(*there, 3);
    each_parameter(*there, [&](const std::string&, Parameter& p) {
      Parameter moved(p.master.shape(), Precision::fp32(), device_of_case());
      copy(moved.value, p.value);
      p = std::move(moved);
    });
    each_state(*there, [&](const std::string&, Tensor& state) { state = on_device(state, device_of_case()); });
  }
};

/// The same pairs, the rest of the room empty, and weights as good as the same.
void check_same(const Pairs& on_gpu, const Pairs& here) {
  CHECK(identical(on_gpu.token_offsets, here.token_offsets));
  CHECK(identical(on_gpu.chosen_offsets, here.chosen_offsets));
  const Tensor experts = on_host(on_gpu.expert), weights = on_host(on_gpu.weight);
  const int32_t used = here.token_offsets.data<int32_t>().back();
  REQUIRE(experts.size() >= here.expert.size());
  for (int32_t i = 0; i < used; ++i) {
    CHECK(experts.data<int32_t>()[i] == here.expert.data<int32_t>()[i]);
    CHECK(weights.data<float>()[i] == doctest::Approx(here.weight.data<float>()[i]).epsilon(1e-4));
  }
  for (int64_t i = used; i < experts.size(); ++i) CHECK(experts.data<int32_t>()[i] == -1);
}

}  // namespace

TEST_CASE("router: strategies by name") {
  CHECK(routers().contains("token_choice"));
  CHECK(make_router_options("token_choice")->experts_per_token() == 2);
  CHECK_THROWS_WITH_AS(make_router_options("tokenchoice"), doctest::Contains("\"tokenchoice\"; known are"), UserError);
  CHECK_THROWS_WITH_AS(make_router_options(""), doctest::Contains("token_choice"), UserError);
  const RouterOptionsFactory make = routers().at("token_choice");
  CHECK_THROWS_WITH_AS(RegisterRouter("token_choice", make), doctest::Contains("two routers are called token_choice"),
                       Error);
}

GPU_CASE("router: every strategy decides and learns on a GPU as on the CPU, and nothing crosses") {
  const int64_t T = 24, E = 8;
  const auto comm = make_self_communicator();
  const Tensor x = random({T, kWidth}, 1, 1, DType::f32), on_gpu = there(x);
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 5, 13, int32_t(T)});
  context.sequence_offsets_there = there(context.sequence_offsets);
  for (const LayerCase& c : layer_cases(E)) {
    if (c.name == "toy") continue;
    CAPTURE(c.name);
    const Twins twins(*c.router, E);
    for (context.step = 0; context.step < 3; ++context.step) {
      context.mode = Mode::train;
      const Pairs here = twins.here->select(x, context);
      const auto before = crossings();
      const Pairs pairs = twins.there->select(on_gpu, context);
      const Weighed weighed = twins.there->weigh(pairs, {}, {}, context);
      std::vector<Tensor> candidates;
      if (weighed.statistics.candidates) candidates.push_back(weighed.statistics.candidates);
      twins.there->after_step({weighed.statistics.chosen, candidates, comm.get()});
      CHECK(crossings().to_device == before.to_device);
      CHECK(crossings().to_host == before.to_host);
      check_same(pairs, here);

      const Weighed expected = twins.here->weigh(here, {}, {}, context);
      CHECK(identical(weighed.statistics.chosen, expected.statistics.chosen));
      REQUIRE(weighed.losses.size() == expected.losses.size());
      for (size_t i = 0; i < weighed.losses.size(); ++i) {
        CAPTURE(weighed.losses[i].name);
        CHECK(weighed.losses[i].value.item() == doctest::Approx(expected.losses[i].value.item()).epsilon(1e-4));
      }
      candidates.clear();
      if (expected.statistics.candidates) candidates.push_back(expected.statistics.candidates);
      twins.here->after_step({expected.statistics.chosen, candidates, comm.get()});
    }
    if (!c.router->causal()) continue;
    context.mode = Mode::eval;
    check_same(twins.there->select(on_gpu, context), twins.here->select(x, context));
  }
}
