#include <doctest/doctest.h>

#include "apps/bench.h"

using namespace agon;

namespace {

BenchRun prepared(const std::string& name, const BenchOptions& o) {
  for (const BenchCase& c : layer_cases(o))
    if (c.name == name) return c.prepare(2);
  FAIL(name);
  return {};
}

}  // namespace

TEST_CASE("bench layer: the shapes of the interface, counted as defined") {
  bool seen = false;
  for (const BenchCase& c : layer_cases({})) {
    if (c.shape != "S1 (4096, 256, 512, 8, 2)" || c.name != "token_choice") continue;
    seen = true;
    CHECK(c.flops == 18.0 * 4096 * 2 * 256 * 512 + 6.0 * 4096 * 256 * 8);
    CHECK(c.tokens == 4096);
  }
  CHECK(seen);
  CHECK(layer_cases({.all = true}).size() > layer_cases({}).size());
  CHECK(layer_cases({.device = {Device::cuda, 0}}).size() > layer_cases({}).size());  // published shapes
}

TEST_CASE("bench layer: balanced tokens load all experts equally, learned routing does not") {
  const BenchOptions o{.all = true, .tiny = true};
  CHECK(prepared("token_choice, balanced", o).figures.at("load_ratio") == 1);
  CHECK(prepared("token_choice", o).figures.at("load_ratio") > 1.1);
  CHECK(prepared("expert_choice", o).figures.at("load_ratio") == 1);
}
