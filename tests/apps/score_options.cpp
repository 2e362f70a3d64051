#include "apps/score_options.h"

#include <doctest/doctest.h>

#include "apps/config_file.h"
#include "tests/apps/threshold_toy.h"

using namespace agon;
using namespace agon::testing;

namespace {

RouterChoice toy(const std::vector<std::string>& overrides = {}) {
  return parse_config("[moe.router]\nstrategy = \"toy_pool\"\n", "test", overrides).moe.router;
}

}  // namespace

TEST_CASE("score options: what scores depend on, and not what only budget, scope and losses do") {
  const PoolToys toys;
  const auto options = score_options(toy());
  CHECK(options.size() == 3);
  CHECK(options.at("alpha") == "1.0");
  CHECK(options.contains("leaks"));
  CHECK(options.contains("norm"));
  const auto choice = [] { return score_options(router_named("token_choice")); }();
  for (const char* key : {"score", "norm", "scale", "groups"}) CHECK(choice.contains(key));
  for (const char* key : {"k", "group", "balance_coefficient", "balance_scope"}) CHECK_FALSE(choice.contains(key));
}

TEST_CASE("score options: differences in words, the budget for learned thresholds only") {
  const PoolToys toys;
  const auto differ = [](const RouterChoice& a, const RouterChoice& b) {
    return score_differences(a.strategy, score_options(a), b.strategy, score_options(b));
  };
  const RouterChoice plain = toy();
  CHECK(differ(plain, plain).empty());
  CHECK(differ(plain, toy({"moe.router.k=1", "moe.router.scope=sequence"})).empty());
  CHECK(differ(plain, toy({"moe.router.alpha=0.5", "moe.router.norm=row_all"})) ==
        "alpha: 1.0 -> 0.5, norm: \"none\" -> \"row_all\"");
  CHECK(differ(plain, router_named("toy_columns")) == "strategy: toy_pool -> toy_columns");
  CHECK(score_differences("s", {{"a", "1"}}, "s", {{"b", "2"}}) == "a: 1 -> (none), b: (none) -> 2");
  CHECK(threshold_differences(plain, toy({"moe.router.z_coefficient=1", "moe.router.scope=sequence"})).empty());
  CHECK(threshold_differences(plain, toy({"moe.router.k=1.5"})) == "k: 2 -> 1.5");
  CHECK(threshold_differences(plain, toy({"moe.router.k=1", "moe.router.alpha=2"})) == "alpha: 1.0 -> 2.0, k: 2 -> 1");
}
