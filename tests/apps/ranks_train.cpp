// One training on many ranks is the training on one.
#include <doctest/doctest.h>

#include <cmath>
#include <mutex>

#include "tests/apps/ranks_run.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Strategy {
  const char* name;
  const char* router;
  bool competes = false;
};

constexpr Strategy kStrategies[] = {
    {"token choice",
     "[moe.router]\nk = 2\ngroup = 1\nbalance_coefficient = 0.02\nz_coefficient = 0.01\nbias_rate = 0.001\njitter = "
     "0.01"},
    {"expert choice", "[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.5\nentropy_coefficient = 0.01"},
    {"competition",
     "[moe.router]\nstrategy = 'competition'\nrate = 0.4\nwarm_up = 0\ngroup = 1\nbalance_coefficient = 0.02\n"
     "diversity_coefficient = 0.1",
     true},
    {"unified",
     "[moe.router]\nstrategy = 'unified'\nk = 1.5\ngroup = 1\nbalance_scope = 'global'\nbalance_coefficient = 0.1"},
};

constexpr std::pair<int, int> kLayouts[] = {{2, 1}, {1, 2}, {4, 1}, {2, 2}, {1, 4}};  // expert x data

Config config_of(const Strategy& s, std::vector<std::string> overrides) {
  overrides.insert(overrides.begin(), {"moe.every=1", "train.batch=8", "parallel.bucket_mib=0.02"});
  return parse_config(std::string(kTiny) + s.router, "tiny", overrides);
}

Outcome on_one_rank(const Config& config, int64_t steps) {
  const auto self = make_self_communicator();
  return RanksRun(*self, config)(steps);
}

/// What rank 0 gets; the others must get the same to the bit.
Outcome on_threads(int ranks, const Config& config, int64_t steps) {
  std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
  run_on_threads(ranks, [&](Communicator& all) { outcomes[size_t(all.rank())] = RanksRun(all, config)(steps); });
  for (const Outcome& o : outcomes) {
    CHECK(o.losses == outcomes[0].losses);
    for (const auto& [name, whole] : o.parameters) {
      CAPTURE(name);
      CHECK(distance(whole, outcomes[0].parameters.at(name)) == 0);
    }
  }
  return outcomes[0];
}

void check_close(const Outcome& many, const Outcome& one, double losses, double tensors) {
  REQUIRE(!one.choices.empty());
  CHECK(many.choices == one.choices);
  REQUIRE(many.losses.size() == one.losses.size());
  for (size_t i = 0; i < one.losses.size(); ++i) {
    CHECK(std::abs(many.losses[i] - one.losses[i]) <= losses);
    CHECK(many.gradient_norms[i] == doctest::Approx(one.gradient_norms[i]).epsilon(10 * losses));
  }
  for (const auto& [name, whole] : one.parameters) {
    CAPTURE(name);
    CHECK(distance(many.parameters.at(name), whole) <= tensors);
  }
  for (const auto& [name, whole] : one.states) {
    CAPTURE(name);
    CHECK(distance(many.states.at(name), whole) <= tensors);
  }
}

}  // namespace

TEST_CASE("ranks: 20 steps of every strategy in every layout are those of one rank") {
  for (const Strategy& s : kStrategies)
    for (const auto& [precision, losses, tensors] :
         {std::tuple{"precision=f64", 1e-10, 1e-10}, {"precision=fp32", 1e-5, 1e-4}}) {
      CAPTURE(std::string(s.name));
      CAPTURE(std::string(precision));
      const Outcome one = on_one_rank(config_of(s, {precision}), 20);
      CHECK((one.competing > 0) == s.competes);
      for (const auto& [expert, data] : kLayouts) {
        CAPTURE(expert);
        CAPTURE(data);
        check_close(on_threads(expert * data, config_of(s, {precision, text("parallel.expert=", expert)}), 20), one,
                    losses, tensors);
      }
    }
}

TEST_CASE("ranks: micro-batches and routing groups of several sequences make no difference") {
  for (const Strategy& s : kStrategies) {
    CAPTURE(std::string(s.name));
    const std::vector<std::string> cut{"precision=f64", "train.batch=16", "train.micro_batch=8", "moe.router.group=2"};
    const Outcome one = on_one_rank(config_of(s, cut), 6);
    for (const auto& [expert, data] : {std::pair{2, 2}, {1, 4}, {4, 1}}) {
      CAPTURE(expert);
      auto spread = cut;
      spread.push_back(text("parallel.expert=", expert));
      check_close(on_threads(expert * data, config_of(s, spread), 6), one, 1e-10, 1e-10);
    }
  }
}

TEST_CASE("ranks: a sharded optimizer gives the same bits, in buckets of any size") {
  for (const Strategy& s : kStrategies)
    for (const auto& [expert, data] : kLayouts)
      for (const char* precision : {"precision=fp32", "precision=bf16"}) {
        CAPTURE(std::string(s.name));
        CAPTURE(expert);
        CAPTURE(data);
        const auto outcome = [&, e = expert, d = data](bool shard, double mib) {
          return on_threads(e * d,
                            config_of(s, {precision, text("parallel.expert=", e), text("parallel.bucket_mib=", mib),
                                          text("parallel.shard_optimizer=", shard ? "true" : "false")}),
                            4);
        };
        const Outcome whole = outcome(false, 0.01), sharded = outcome(true, 0.01), large = outcome(true, 8);
        CHECK(sharded.losses == whole.losses);
        CHECK(sharded.gradient_norms == whole.gradient_norms);
        for (const auto& [name, tensor] : whole.parameters) {
          CAPTURE(name);
          CHECK(distance(sharded.parameters.at(name), tensor) == 0);
        }
        check_close(large, whole, 1e-5, 1e-4);  // its shares are others, and with them the last bits of the norm
      }
}

TEST_CASE("ranks: what a step reports is of all ranks") {
  const Strategy& s = kStrategies[0];
  const Outcome one = on_one_rank(config_of(s, {"precision=f64"}), 2),
                many = on_threads(4, config_of(s, {"precision=f64", "parallel.expert=2"}), 2);
  for (size_t i = 0; i < 2; ++i) {
    const StepReport &a = many.reports[i], &b = one.reports[i];
    CHECK(a.tokens == b.tokens);
    CHECK(a.load == b.load);
    CHECK(a.competing == b.competing);
    REQUIRE(a.losses.size() == b.losses.size());
    for (const auto& [name, value] : b.losses) CHECK(a.losses.at(name) == doctest::Approx(value).epsilon(1e-10));
    REQUIRE(a.routing.size() == b.routing.size());
    for (const auto& [name, value] : b.routing) {
      CAPTURE(name);
      CHECK(a.routing.at(name) == doctest::Approx(value).epsilon(1e-9));
    }
  }
}
