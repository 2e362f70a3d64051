#include "apps/step_end.h"

#include <doctest/doctest.h>

#include <csignal>

#include "apps/config_file.h"
#include "distributed/host.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// What rank 0 hears where each of four ranks says its part, in a step of `seconds`.
struct Heard {
  StepEnd end;
  StepReport report;
  std::string slow;

  Heard(const std::vector<StepEnd>& asked, const std::vector<Communication>& moved, double seconds) {
    run_on_threads(4, [&](Communicator& all) {
      const Config config = parse_config(std::string(kTiny) + kTinyRouter, "tiny");
      Ranks ranks(config, all);
      StepReport r;
      r.step = 9;
      r.seconds = seconds;
      const StepEnd heard = meet(asked[size_t(all.rank())], moved[size_t(all.rank())], ranks, r);
      const std::string line = slow_rank(r, ranks);
      if (!ranks.first()) return;
      end = heard;
      report = r;
      slow = line;
    });
  }
};

const std::vector<StepEnd> kNothing(4);

}  // namespace

TEST_CASE("step_end: what one rank is asked, all do") {
  const std::vector<Communication> none(4);
  CHECK(Heard(kNothing, none, 1).end.stop == 0);
  CHECK(!Heard(kNothing, none, 1).end.save);
  CHECK(Heard({{}, {}, {SIGTERM, false}, {}}, none, 1).end.stop == SIGTERM);
  const StepEnd both = Heard({{}, {0, true}, {SIGINT, false}, {}}, none, 1).end;
  CHECK(both.stop == SIGINT);
  CHECK(both.save);
}

TEST_CASE("step_end: shares are means, bytes sums, and the slowest is the one that waits least") {
  const Heard heard(kNothing, {{100, 0.2, 0.1}, {10, 0.4, 0.3}, {1, 0.1, 0}, {0, 0.3, 0.2}}, 1);
  CHECK(heard.report.comm_share == doctest::Approx(0.25));
  CHECK(heard.report.comm_bytes == 111);
  CHECK(heard.report.slowest == 2);
  CHECK(heard.report.waited == doctest::Approx(0.2));
  CHECK(heard.slow.empty());  // waited less than 1 s
  const Heard even(kNothing, {{0, 0.3, 0.21}, {0, 0.3, 0.22}, {0, 0.3, 0.2}, {0, 0.3, 0.22}}, 1);
  CHECK(even.report.slowest == -1);
}

TEST_CASE("step_end: a rank is called slow when the others wait more than 1 s and half the step for it") {
  const auto waiting = [](double seconds, double step) {
    return Heard(kNothing, {{0, seconds, seconds}, {0, 0, 0}, {0, seconds, seconds}, {0, seconds, seconds}}, step);
  };
  CHECK(waiting(3, 4).slow ==
        "rank 1 on " + this_host() + " is slow: the others waited 3.0 s for it in step 9, which took 4.0 s");
  CHECK(waiting(1.9, 4).slow.empty());
  CHECK(waiting(0.9, 1).slow.empty());
}

TEST_CASE("step_end: one rank hears itself") {
  const auto self = make_self_communicator();
  const Config config = parse_config(std::string(kTiny) + kTinyRouter, "tiny");
  Ranks ranks(config, *self);
  StepReport r;
  CHECK(meet({SIGINT, true}, {5, 1, 1}, ranks, r).stop == SIGINT);
  CHECK(r.comm_bytes == 0);
}
