// A training whose rows travel in another way than the exact one.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/apps/ranks_run.h"
#include "tests/support/cuda.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr const char* kRouters[] = {
    "[moe.router]\nk = 2\ngroup = 1\nz_coefficient = 0.01\nbias_rate = 0.001",
    "[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.5",
    "[moe.router]\nstrategy = 'competition'\nrate = 0.4\nwarm_up = 0\ngroup = 1\nloser_gradient = true",
    "[moe.router]\nstrategy = 'unified'\nk = 1.5\ngroup = 1",
};

Config config_of(const char* router, std::vector<std::string> overrides) {
  overrides.insert(overrides.begin(), {"moe.every=1", "train.batch=4"});
  return parse_config(std::string(kTiny) + router, "tiny", overrides);
}

Outcome on_threads(int ranks, const Config& config, int64_t steps) {
  Outcome outcome;
  run_on_threads(ranks, [&](Communicator& all) {
    const Outcome mine = RanksRun(all, config)(steps);
    if (all.rank() == 0) outcome = mine;
  });
  return outcome;
}

void check_same(const Outcome& a, const Outcome& b) {
  CHECK(a.losses == b.losses);
  CHECK(a.gradient_norms == b.gradient_norms);
  CHECK(a.choices == b.choices);
  for (const auto& [name, whole] : b.parameters) {
    CAPTURE(name);
    CHECK(identical(a.parameters.at(name), whole));
  }
}

}  // namespace

TEST_CASE("ranks: bounds that are never reached change no bit of a training") {
  for (const char* router : kRouters)
    for (const auto& [ranks, expert] : {std::pair{2, "parallel.expert=2"}, {4, "parallel.expert=2"}}) {
      CAPTURE(std::string(router));
      CAPTURE(ranks);
      check_same(
          on_threads(ranks, config_of(router, {expert, "parallel.exchange=bounded", "parallel.exchange_bound=100"}), 5),
          on_threads(ranks, config_of(router, {expert}), 5));
    }
}

TEST_CASE("ranks: a training with tight bounds goes on, and its reports say what was dropped") {
  for (const char* router : kRouters) {
    CAPTURE(std::string(router));
    const Outcome found = on_threads(
        2, config_of(router, {"parallel.expert=2", "parallel.exchange=bounded", "parallel.exchange_bound=0.3"}), 5);
    for (const StepReport& r : found.reports) {
      CHECK(r.routing.at("exchange_dropped") > 0.05);
      CHECK(r.routing.at("exchange_dropped") < 0.6);
      CHECK(std::isfinite(r.loss));
    }
  }
}

TEST_CASE("ranks: a training whose rows travel as bf16 stays close to one whose rows do not") {
  const Outcome exact = on_threads(2, config_of(kRouters[0], {"parallel.expert=2"}), 10),
                found =
                    on_threads(2, config_of(kRouters[0], {"parallel.expert=2", "parallel.exchange_dtype=bf16"}), 10);
  CHECK(found.losses != exact.losses);
  for (size_t i = 0; i < exact.losses.size(); ++i)
    CHECK(found.losses[i] == doctest::Approx(exact.losses[i]).epsilon(0.01));
}

DEVICE_CASE("ranks: one rank whose own rows are made to travel trains to the same bits, exact and bounded") {
  const std::string device = device_of_case().kind == Device::cpu ? "device=cpu" : "device=cuda";
  const int64_t steps = kSlow ? 1 : 3;
  const auto self = make_self_communicator();
  for (const char* router : kRouters) {
    CAPTURE(std::string(router));
    const auto run = [&](std::vector<std::string> overrides) {
      overrides.push_back(device);
      return RanksRun(*self, config_of(router, overrides))(steps);
    };
    const Outcome one = run({});
    check_same(run({"parallel.exchange_own=true"}), one);
    check_same(run({"parallel.exchange_own=true", "parallel.exchange=bounded", "parallel.exchange_bound=100"}), one);
  }
}
