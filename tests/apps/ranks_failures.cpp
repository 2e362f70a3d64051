// What goes wrong on one rank of a training stops all, with the reason, and changes nothing.
#include <doctest/doctest.h>

#include <cmath>

#include "distributed/together.h"
#include "tests/apps/ranks_run.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// What each of four ranks throws in its second step, after `spoil` of one of them; masters and moments have to be as
/// they were.
std::vector<std::string> thrown(int expert, int spoilt, const std::function<void(RanksRun&)>& spoil,
                                std::vector<std::string> overrides = {}) {
  std::vector<std::string> messages(4);
  overrides.push_back(text("parallel.expert=", expert));
  overrides.push_back("parallel.shard_optimizer=true");
  const Config config = parse_config(std::string(kTiny) + kTinyRouter, "tiny", overrides);
  run_on_threads(4, [&](Communicator& all) {
    RanksRun run(all, config);
    run.trainer.step(0, 0);
    if (all.rank() == spoilt) spoil(run);
    std::vector<Tensor> before;
    for (const Parameter* p : run.optimizer.parameters()) before.push_back(clone(p->master));
    run.optimizer.each_moment([&](const Optimizer::Moment& m) { before.push_back(clone(m.tensor)); });
    std::string& message = messages[size_t(all.rank())];
    all.at_step(2);
    try {
      run.trainer.step(1, 1);
    } catch (const Error& e) {
      message = e.what();
      if (!dynamic_cast<const Agreed*>(&e)) all.abort(message);
    }
    size_t i = 0;
    const auto same = [&](const Tensor& t) {
      CHECK(std::memcmp(t.address(), before[i].address(), size_t(t.bytes())) == 0);
      ++i;
    };
    for (const Parameter* p : run.optimizer.parameters()) same(p->master);
    run.optimizer.each_moment([&](const Optimizer::Moment& m) { same(m.tensor); });
  });
  return messages;
}

void fill_parameter(RanksRun& run, const std::string& path, double value) {
  for (Parameter* p : run.optimizer.parameters())
    if (p->name == path) return fill(p->value, value);
  FAIL("no parameter " << path);
}

}  // namespace

TEST_CASE("ranks: a loss that is not finite on one rank is refused by all, with rank and tensor") {
  for (const int expert : {1, 2, 4}) {
    CAPTURE(expert);
    const auto messages = thrown(expert, 2, [](RanksRun& run) { fill_parameter(run, "head", INFINITY); });
    for (const std::string& m : messages)
      CHECK(m ==
            "step 2: the loss is not finite; first found in the parameter head on rank 2; the optimizer was not "
            "applied");
  }
}

TEST_CASE("ranks: an output that is not finite is found on the rank that makes it") {
  for (const int expert : {1, 2}) {
    CAPTURE(expert);
    // The last block's experts: no router sees what comes out of them.
    const auto messages =
        thrown(expert, 3, [](RanksRun& run) { fill(run.model.blocks()[0].experts->experts().up.value, 1e25); },
               {"model.layers=1", "moe.every=1"});
    for (const std::string& m : messages) {
      CHECK(m == messages[0]);
      CHECK(m.find("step 2: the loss is not finite; first found in the output of blocks.0.feed_forward on rank ") == 0);
    }
  }
}

TEST_CASE("ranks: scores that a router refuses on one rank stop the others with the reason") {
  for (const int expert : {1, 2, 4}) {
    CAPTURE(expert);
    const auto messages =
        thrown(expert, 1, [](RanksRun& run) { fill_parameter(run, "blocks.1.attention.out.weight", NAN); });
    const std::string reason =
        "step 2: the loss is not finite; first found in the parameter blocks.1.attention.out.weight on rank 1";
    CHECK(messages[1].find(reason) == 0);
    for (const int rank : {0, 2, 3}) {
      CAPTURE(messages[size_t(rank)]);
      CHECK(messages[size_t(rank)].find("in step 2 failed: ") != std::string::npos);
      CHECK(messages[size_t(rank)].find(reason) != std::string::npos);
    }
  }
}

TEST_CASE("ranks: a gradient that is not finite on one rank is refused by all, with rank and tensor") {
  for (const int expert : {1, 4}) {
    CAPTURE(expert);
    const auto messages = thrown(expert, 1,
                                 [](RanksRun& run) {
                                   fill_parameter(run, "blocks.0.feed_forward.up", 2e36);
                                   fill_parameter(run, "blocks.0.feed_forward.down", 2e-38);
                                 },
                                 {"model.activation=gelu", "moe.router.z_coefficient=1e6", "moe.router.jitter=0"});
    for (const std::string& m : messages)
      CHECK(m ==
            "step 2: the gradient is not finite; first found in the gradient of blocks.0.feed_forward.down on "
            "rank 1; the optimizer was not applied");
  }
}

TEST_CASE("ranks: one that throws in the middle of a step ends it on all") {
  for (const int expert : {1, 2, 4}) {
    CAPTURE(expert);
    const auto messages = thrown(expert, 2, [](RanksRun& run) {
      std::ranges::fill(run.corpus.train.id, 100000);  // no token of the vocabulary
    });
    CHECK(messages[2].find("100000") != std::string::npos);
    for (const int rank : {0, 1, 3}) {
      CAPTURE(messages[size_t(rank)]);
      CHECK(messages[size_t(rank)].find("in step 2 failed: ") != std::string::npos);
      CHECK(messages[size_t(rank)].find("rank 2") != std::string::npos);
      CHECK(messages[size_t(rank)].find("100000") != std::string::npos);
    }
  }
}
