#include <doctest/doctest.h>

#include "apps/bench.h"
#include "core/error.h"

using namespace agon;

TEST_CASE("bench train: a step of a configuration, with its tokens") {
  BenchOptions o;
  o.tiny = true;
  o.overrides = {"train.batch=3", "moe.router.strategy=unified"};
  const BenchCases cases = train_cases(o);
  REQUIRE(cases.size() == 1);
  CHECK(cases[0].tokens == 48);
  CHECK(cases[0].flops > 0);
  CHECK(cases[0].name == "unified");
  const BenchRun run = cases[0].prepare(1);
  run.once(0);
  run.once(1);
  CHECK(run.parts->empty());  // memory was being found
  run.once(2);
  CHECK(run.parts->at("experts") > 0);
  CHECK(run.parts->at("optimizer") > 0);
  CHECK(run.figures.at("vocabulary") == 257);
  CHECK(run.figures.at("parameters") > run.figures.at("active_parameters"));
  o.tiny = false;
  o.config = "no-such.toml";
  CHECK_THROWS_AS(train_cases(o), UserError);
}

TEST_CASE("bench train: its configuration has about 10 million active parameters") {
  BenchOptions o;
  o.config = AGON_SOURCE_DIR "/configs/bench-10m.toml";
  o.overrides = {"data.builtin_bytes=20000"};
  const BenchCases cases = train_cases(o);
  const double active = cases[0].flops / cases[0].tokens / 6;  // attention among it
  CHECK(active > 9e6);
  CHECK(active < 12e6);
}
