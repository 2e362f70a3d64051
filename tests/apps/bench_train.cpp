#include <doctest/doctest.h>

#include "apps/bench_measure.h"
#include "core/copy.h"

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

TEST_CASE("bench train: many ranks take a step together, as often as one another") {
  run_on_threads(2, [](Communicator& all) {
    BenchOptions o;
    o.tiny = true;
    o.seconds = 0.01;
    o.overrides = {"parallel.expert=2", "threads=1"};
    o.ranks = &all;
    const BenchCases cases = train_cases(o);
    CHECK(cases[0].tokens == 32);
    CHECK(cases[0].shape.ends_with(", ranks 2 x 1"));
    PeakProbe probe(o);
    const BenchResult result = measure(cases, o, probe)[0];
    const Tensor seconds = all.all_gather(tensor_of<double>({result.seconds, double(result.iterations)}));
    CHECK(seconds.data<double>()[0] == seconds.data<double>()[2]);
    CHECK(seconds.data<double>()[1] == seconds.data<double>()[3]);
    const BenchPeak sum = peak_of_ranks({double(1 + all.rank()), 10}, o);
    CHECK(sum.flops == 3);
    CHECK(sum.bytes == 20);
    o.overrides = {"train.batch=3"};
    CHECK_THROWS_AS(train_cases(o), UserError);
  });
}
