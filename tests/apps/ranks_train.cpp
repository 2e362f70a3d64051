// One training on many ranks is the training on one: on threads, and on processes where mpirun has started this program
// several times (tests/ranks.sh).
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

/// Runs body on so many ranks: of the processes under mpirun, else threads.
void on_ranks(int ranks, const Body& body) {
  if (ranks_of_mpi())
    on_every_kind(ranks, body);
  else
    run_on_threads(ranks, body);
}

/// What all ranks give, the same to the bit; nothing in a process that is none of them.
std::optional<Outcome> trained_on(int ranks, const Config& config, int64_t steps) {
  std::optional<Outcome> outcome;
  on_ranks(ranks, [&](Communicator& all) {
    Outcome mine = RanksRun(all, config)(steps);
    CHECK(same_on_all(mine, all));
    if (all.rank() == 0 || ranks_of_mpi()) outcome = std::move(mine);
  });
  return outcome;
}

void check_close(const std::optional<Outcome>& of_many, const Outcome& one, double losses, double tensors) {
  if (!of_many) return;
  const Outcome& many = *of_many;
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
        check_close(trained_on(expert * data, config_of(s, {precision, text("parallel.expert=", expert)}), 20), one,
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
      check_close(trained_on(expert * data, config_of(s, spread), 6), one, 1e-10, 1e-10);
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
          return trained_on(e * d,
                            config_of(s, {precision, text("parallel.expert=", e), text("parallel.bucket_mib=", mib),
                                          text("parallel.shard_optimizer=", shard ? "true" : "false")}),
                            4);
        };
        const auto whole = outcome(false, 0.01), sharded = outcome(true, 0.01), large = outcome(true, 8);
        if (!whole) continue;
        CHECK(sharded->losses == whole->losses);
        CHECK(sharded->gradient_norms == whole->gradient_norms);
        for (const auto& [name, tensor] : whole->parameters) {
          CAPTURE(name);
          CHECK(distance(sharded->parameters.at(name), tensor) == 0);
        }
        // Its shares are others, and with them the last bits of the norm.
        check_close(large, *whole, 1e-5, 1e-4);
      }
}

TEST_CASE("ranks: sums that go on during the backward pass are the same") {
  const Strategy& s = kStrategies[2];
  const Outcome one = on_one_rank(config_of(s, {"precision=f64"}), 5);
  for (const char* shard : {"true", "false"})
    for (const int delay : {0, 5})
      run_on_links(
          4,
          [&](Communicator& all) {
            const Config config =
                config_of(s, {"precision=f64", "parallel.expert=2", text("parallel.shard_optimizer=", shard)});
            const Outcome mine = RanksRun(all, config)(5);
            CHECK(same_on_all(mine, all));
            check_close(mine, one, 1e-10, 1e-10);
          },
          {}, delay);
}

TEST_CASE("ranks: what a step reports is of all ranks") {
  const Strategy& s = kStrategies[0];
  const Outcome one = on_one_rank(config_of(s, {"precision=f64"}), 2);
  const auto many = trained_on(4, config_of(s, {"precision=f64", "parallel.expert=2"}), 2);
  if (!many) return;
  for (size_t i = 0; i < 2; ++i) {
    const StepReport &a = many->reports[i], &b = one.reports[i];
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
