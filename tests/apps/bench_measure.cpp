#include "apps/bench_measure.h"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "core/parallel.h"

using namespace agon;

namespace {

BenchCase sleeping(int milliseconds, int64_t* calls) {
  BenchCase c{.group = "ops", .name = "sleep"};
  c.flops = 1e6;
  c.bytes = 2e6;
  c.prepare = [=](int64_t) {
    return BenchRun{[=](int64_t turn) {
                      *calls = turn + 1;
                      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
                    },
                    {{"load_ratio", 1.5}}};
  };
  return c;
}

}  // namespace

TEST_CASE("bench measure: the time of an iteration, and rates by it") {
  BenchOptions options;
  options.tiny = true;
  options.seconds = 0.05;
  PeakProbe probe(options);
  int64_t calls = 0;
  const BenchCase c = sleeping(2, &calls);
  const BenchResult r = measure({&c, 1}, options, probe)[0];
  CHECK(r.error.empty());
  CHECK(r.seconds >= 2e-3);
  CHECK(r.seconds < 20e-3);
  CHECK(r.rounds == 5);
  CHECK(r.iterations >= 1);
  CHECK(calls > r.rounds * r.iterations);  // warm-up came first
  CHECK(flops_per_second(c, r) == doctest::Approx(1e6 / r.seconds));
  CHECK(bytes_per_second(c, r) == doctest::Approx(2e6 / r.seconds));
  CHECK(r.peak.flops > 0);
  CHECK(share_of_peak(c, r) == doctest::Approx(1e6 / r.seconds / r.peak.flops));
  CHECK(share_of_copy(c, r) == doctest::Approx(2e6 / r.seconds / r.peak.bytes));
  CHECK(r.figures.at("load_ratio") == 1.5);
}

TEST_CASE("bench measure: what is measured together alternates, with threads of its own") {
  BenchOptions options;
  options.tiny = true;
  options.seconds = 1e-3;
  PeakProbe probe(options);
  set_threads(2);
  std::string order;
  const auto noting = [&](char name) {
    BenchCase c{.group = "ops", .name = std::string(1, name)};
    c.threads = 1;
    c.prepare = [&order, name](int64_t) {
      return BenchRun{[&order, name](int64_t) {
        CHECK(threads() == 1);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        order += name;
      }};
    };
    return c;
  };
  const BenchCases cases{noting('a'), noting('b')};
  const auto results = measure(cases, options, probe);
  REQUIRE(results.size() == 2);
  CHECK(results[0].rounds == 3);
  CHECK(order.ends_with("ababab"));
  CHECK(threads() == 2);
  set_threads(0);
}

TEST_CASE("bench measure: a case that fails says why, and has no rates") {
  BenchOptions options;
  options.tiny = true;
  PeakProbe probe(options);
  BenchCase c{.group = "ops", .name = "broken", .flops = 1};
  c.prepare = [](int64_t) -> BenchRun { throw Error("no room"); };
  const BenchResult r = measure({&c, 1}, options, probe)[0];
  CHECK(r.error == "no room");
  CHECK(flops_per_second(c, r) == 0);
  CHECK(share_of_peak(c, r) == 0);
}

TEST_CASE("bench measure: inputs are rotated over more than the caches hold") {
  BenchOptions options;
  options.seconds = 1e-3;
  CHECK(cache_bytes({}) > 0);
  int64_t sets = 0;
  BenchCase c{.group = "ops", .name = "sets"};
  c.set_bytes = cache_bytes({}) / 3;
  c.prepare = [&](int64_t n) { return sets = n, BenchRun{[](int64_t) {}}; };
  BenchOptions probing = options;
  probing.tiny = true;
  PeakProbe probe(probing);
  measure({&c, 1}, options, probe);
  CHECK(sets * c.set_bytes > 2 * cache_bytes({}));
}
