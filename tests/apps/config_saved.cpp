#include "apps/config_saved.h"

#include <doctest/doctest.h>

#include "apps/config_compare.h"
#include "apps/config_dump.h"
#include "apps/config_file.h"
#include "apps/score_options.h"
#include "tests/apps/threshold_toy.h"
#include "tests/support/message.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The dump of a configuration as a checkpoint has it.
std::string saved(const std::string& toml) { return dump(parse_config(toml, "test")); }

Config opened(const std::string& dumped, const std::vector<std::string>& overrides) {
  return parse_saved_config(dumped, "saved", overrides);
}

constexpr const char* kChoice = R"(
[model]
layers = 3
[moe.router]
k = 3
norm = "topk"
z_coefficient = 0.25
)";

}  // namespace

TEST_CASE("saved config: without overrides, and with ordinary ones, as parse_config") {
  const std::string dumped = saved(std::string(kChoice) + "[[moe.layer]]\nindex = 1\nk = 2\n");
  CHECK(differences(parse_config(dumped, "test"), opened(dumped, {})).empty());
  CHECK(differences(parse_config(dumped, "test"), saved_config(dumped, "test")).empty());
  const Config other = opened(dumped, {"moe.router.scale=2", "model.width=64"});
  CHECK(other.model.width == 64);
  CHECK(score_options(other.moe.router).at("scale") == "2.0");
  CHECK(agon::test::contains(agon::test::user_error([&] { opened(dumped, {"moe.router.scael=2"}); }), "scale"));
}

TEST_CASE("saved config: another strategy keeps what both have and takes its defaults for the rest") {
  const PoolToys toys;
  const std::string dumped = saved(kChoice);
  const Config c = opened(dumped, {"moe.router.strategy=toy_pool"});
  CHECK(c.moe.router.strategy == "toy_pool");
  CHECK(c.moe.router.options->experts_per_token() == 3);
  CHECK(score_options(c.moe.router).at("norm") == "\"none\"");  // "topk" is not among its norms
  CHECK(opened(dumped, {"moe.router.strategy=toy_pool", "moe.router.k=1.5"}).moe.router.options->experts_per_token() ==
        1.5);
  // A key of the old strategy alone, given now, is a mistake.
  CHECK_THROWS_AS(opened(dumped, {"moe.router.strategy=toy_pool", "moe.router.bias_rate=0.1"}), UserError);
  CHECK_THROWS_WITH_AS(opened(dumped, {"moe.router.strategy=toy_pol"}), doctest::Contains("toy_pool"), UserError);
  const Config back =
      opened(saved("[moe.router]\nstrategy = \"toy_pool\"\nk = 4\nalpha = 3\n"), {"moe.router.strategy=token_choice"});
  CHECK(back.moe.router.options->experts_per_token() == 4);
}

TEST_CASE("saved config: layers follow overrides of all layers in what they share") {
  const PoolToys toys;
  const std::string dumped = saved(std::string(kChoice) + "[[moe.layer]]\nindex = 1\nk = 2\n");
  Config c = opened(dumped, {"moe.router.strategy=toy_pool"});
  CHECK(c.moe.router_of(1).strategy == "toy_pool");
  CHECK(c.moe.router_of(1).options->experts_per_token() == 2);
  CHECK(c.moe.router_of(0).options->experts_per_token() == 3);
  c = opened(dumped, {"moe.router.scale=3", "moe.router.k=5"});
  CHECK(score_options(c.moe.router_of(1)).at("scale") == "3.0");
  CHECK(c.moe.router_of(1).options->experts_per_token() == 2);
  // A layer that leaves the others keeps its budget, its own or that of all.
  c = opened(dumped, {"moe.layer.2.strategy=toy_columns", "moe.layer.1.strategy=toy_columns"});
  CHECK(c.moe.router_of(0).strategy == "token_choice");
  CHECK(c.moe.router_of(1).options->experts_per_token() == 2);
  CHECK(c.moe.router_of(2).strategy == "toy_columns");
  CHECK(c.moe.router_of(2).options->experts_per_token() == 3);
  // One that has a strategy of its own keeps that.
  const std::string mixed = saved(std::string(kChoice) + "[[moe.layer]]\nindex = 1\nstrategy = \"toy_columns\"\n");
  c = opened(mixed, {"moe.router.strategy=toy_pool"});
  CHECK(c.moe.router_of(0).strategy == "toy_pool");
  CHECK(c.moe.router_of(1).strategy == "toy_columns");
}
