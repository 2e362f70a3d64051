#include "apps/ranks.h"

#include <doctest/doctest.h>

#include "apps/config_file.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

std::string refused(int ranks, std::vector<std::string> overrides) {
  return failure_of(ranks, [&](Communicator& all) {
    const Config config = parse_config(std::string(kTiny) + kTinyRouter, "tiny", overrides);
    const Ranks made(config, all);
  });
}

}  // namespace

TEST_CASE("ranks: groups of experts and of their replicas") {
  run_on_threads(4, [](Communicator& all) {
    const Config config =
        parse_config(std::string(kTiny) + kTinyRouter, "tiny", std::vector<std::string>{"parallel.expert=2"});
    const Ranks ranks(config, all);
    CHECK(ranks.size() == 4);
    CHECK(ranks.first() == (all.rank() == 0));
    CHECK(ranks.experts.group->size() == 2);
    CHECK(ranks.experts.replicas->size() == 2);
  });
}

TEST_CASE("ranks: layouts that do not divide are refused, naming key, found and expected") {
  CHECK(refused(4, {}) == "");
  CHECK(refused(1, {"parallel.expert=2"}) ==
        "parallel.expert (command line): experts spread over 2 ranks do not divide a job of 1 rank; expected a divisor "
        "of it");
  CHECK(refused(3, {"parallel.expert=2", "train.batch=3"}).find("parallel.expert (command line)") == 0);
  CHECK(refused(3, {}) == "train.batch (tiny:17): 4 sequences do not divide over 3 ranks; expected a multiple of 3");
  CHECK(refused(4, {"train.batch=8", "train.micro_batch=2"}) ==
        "train.micro_batch (command line): 2 sequences do not divide over 4 ranks; expected a multiple of 4");
  CHECK(refused(4, {"moe.router.group=2"}) ==
        "train.batch (tiny:17): 4 sequences do not divide over 4 ranks in routing groups of 2 sequences; expected a "
        "multiple of 8");
}
