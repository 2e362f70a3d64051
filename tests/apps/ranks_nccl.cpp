// A training whose ranks exchange through NCCL: played by the host here, real where there is a GPU.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/apps/ranks_run.h"
#include "tests/distributed/nccl_ranks.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr std::pair<const char*, const char*> kStrategies[] = {
    {"token choice",
     "[moe.router]\nk = 2\ngroup = 1\nbalance_coefficient = 0.02\nz_coefficient = 0.01\nbias_rate = 0.001"},
    {"expert choice", "[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.5"},
    {"competition", "[moe.router]\nstrategy = 'competition'\nrate = 0.4\nwarm_up = 0\ngroup = 1"},
    {"unified", "[moe.router]\nstrategy = 'unified'\nk = 1.5\ngroup = 1"},
};

Config config_of(const char* router, Device device, std::vector<std::string> overrides = {}) {
  overrides.insert(overrides.begin(), {"moe.every=1", "train.batch=4", "parallel.bucket_mib=0.02",
                                       text("device=", device.kind == Device::cpu ? "cpu" : "cuda")});
  return parse_config(std::string(kTiny) + router, "tiny", overrides);
}

Outcome on_one_rank(const Config& config, int64_t steps) {
  const auto self = make_self_communicator();
  return RanksRun(*self, config)(steps);
}

void check_identical(const Outcome& a, const Outcome& b) {
  CHECK(a.losses == b.losses);
  CHECK(a.gradient_norms == b.gradient_norms);
  CHECK(a.choices == b.choices);
  for (const auto& [name, tensor] : b.parameters) {
    CAPTURE(name);
    CHECK(distance(a.parameters.at(name), tensor) == 0);
  }
}

}  // namespace

TEST_CASE("ranks by nccl: steps of every strategy are those of one rank") {
  for (const auto& [name, router] : kStrategies)
    for (const Device device : devices_of_fake()) {
      CAPTURE(std::string(name));
      CAPTURE(device);
      const Outcome one = on_one_rank(config_of(router, device), 2);
      for (const auto& [expert, shard] : {std::pair{2, false}, {1, true}}) {
        CAPTURE(expert);
        FakeNccl::fresh();
        std::vector<Outcome> outcomes(2);
        const Config config =
            config_of(router, device,
                      {text("parallel.expert=", expert), text("parallel.shard_optimizer=", shard ? "true" : "false")});
        run_on_threads(2, [&](Communicator& control) {
          const auto all = fake_rank(control, device);
          outcomes[size_t(all->rank())] = RanksRun(*all, config)(2);
        });
        check_identical(outcomes[1], outcomes[0]);
        CHECK(FakeNccl::instance().count("all_reduce") + FakeNccl::instance().count("reduce_scatter") > 0);
        if (expert == 2) CHECK(FakeNccl::instance().count("send_receive") > 0);
        CHECK(outcomes[0].choices == one.choices);
        for (size_t i = 0; i < one.losses.size(); ++i) CHECK(std::abs(outcomes[0].losses[i] - one.losses[i]) <= 1e-5);
        for (const auto& [parameter, tensor] : one.parameters) {
          CAPTURE(parameter);
          CHECK(distance(outcomes[0].parameters.at(parameter), tensor) <= 1e-4);
        }
      }
    }
}

namespace {

/// Steps of every strategy on one rank by NCCL, exact and bounded, own rows where they are and forced through the
/// exchange and through NCCL: self's, to the bit.
void check_one_rank(Device device, int64_t steps, const NcclLibrary* library) {
  for (const auto& [name, router] : kStrategies) {
    CAPTURE(std::string(name));
    const Outcome one = on_one_rank(config_of(router, device), steps);
    for (const char* exchange : {"exact", "bounded"})
      for (const bool forced : {false, true}) {
        CAPTURE(std::string(exchange));
        CAPTURE(forced);
        NcclOptions options;
        options.device = device;
        options.control = make_self_communicator();
        options.send_to_self = forced;
        options.library = library;
        const auto comm = make_nccl_communicator(std::move(options));
        const Config config = config_of(router, device,
                                        {text("parallel.exchange=", exchange), "parallel.exchange_bound=100",
                                         text("parallel.exchange_own=", forced ? "true" : "false")});
        check_identical(RanksRun(*comm, config)(steps), one);
      }
  }
}

}  // namespace

TEST_CASE("ranks by nccl: one rank is self, to the bit, own rows forced through it too") {
  for (const Device device : devices_of_fake()) {
    CAPTURE(device);
    FakeNccl::fresh();
    use_device(device);
    check_one_rank(device, 2, &FakeNccl::library());
    CHECK(FakeNccl::instance().count("send_receive 0>0:") > 0);
  }
}

TEST_CASE("cuda: ranks by nccl: 20 steps of every strategy on one rank are self's, to the bit" *
          doctest::skip(!has_gpu_for_nccl())) {
  use_device({Device::cuda, 0});
  check_one_rank({Device::cuda, 0}, 20, nullptr);
}
