#include "apps/layout_costs.h"

#include <doctest/doctest.h>

#include "apps/costs.h"
#include "moe/layer.h"
#include "tests/apps/ranks_run.h"
#include "tests/support/gradient.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr std::pair<const char*, const char*> kStrategies[] = {
    {"token choice", "[moe.router]\nk = 2\nbalance_coefficient = 0.02\nbias_rate = 0.001"},
    {"expert choice", "[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.5"},
    {"competition", "[moe.router]\nstrategy = 'competition'\nrate = 0.4\nwarm_up = 0\ngroup = 1"},
    {"unified", "[moe.router]\nstrategy = 'unified'\nk = 1.5\ngroup = 1"},
};

Config config_of(const char* router, std::vector<std::string> overrides = {}) {
  overrides.insert(overrides.begin(), {"moe.every=1", "train.batch=16", "train.micro_batch=8",
                                       "parallel.bucket_mib=0.02", "model.dropout=0"});
  return parse_config(std::string(kTiny) + router, "tiny", overrides);
}

int64_t sent(const Communicator& group) {
  int64_t bytes = 0;
  for (const auto& [operation, t] : group.traffic()) bytes += t.sent;
  return bytes;
}

/// What rank 0 of a real job has and sends in its first step.
struct Counted {
  MemoryUse memory;
  int64_t exchange = 0, rest = 0;
};

Counted counted(const Config& c, const Layout& layout) {
  Config config = c;
  config.parallel.expert = layout.expert;
  config.parallel.shard_optimizer = layout.shard_optimizer;
  Counted found;
  run_on_threads(layout.ranks, [&](Communicator& all) {
    RanksRun run(all, config);
    MemoryUse memory = lasting_memory(run.model, run.corpus);
    memory.optimizer = run.optimizer.bytes();
    memory.arena = int64_t(run.trainer.measure(config.train.micro_batch / layout.ranks));
    const auto rest = [&] { return sent(run.ranks.all) + sent(*run.ranks.experts.replicas); };
    const int64_t in_group = sent(*run.ranks.experts.group), others = rest();
    run.trainer.step(0, 0);
    if (all.rank() == 0) found = {memory, sent(*run.ranks.experts.group) - in_group, rest() - others};
  });
  return found;
}

}  // namespace

TEST_CASE("layout costs: what a rank of a real job has and sends") {
  for (const auto& [name, router] : kStrategies) {
    const Config config = config_of(router);
    const bool competes = !config.competing_layers().empty();
    const Corpus corpus = load_corpus(config.data);
    for (const int ranks : {2, 4})
      for (const Layout& layout : possible_layouts(config, ranks)) {
        CAPTURE(std::string(name));
        CAPTURE(layout.ranks);
        CAPTURE(layout.expert);
        CAPTURE(layout.shard_optimizer);
        const LayoutCosts plan = costs_of(config, corpus, layout);
        const Counted real = counted(config, layout);
        CHECK(plan.memory.parameters == real.memory.parameters);
        CHECK(plan.memory.gradients == real.memory.gradients);
        CHECK(plan.memory.optimizer == real.memory.optimizer);
        CHECK(plan.memory.text == real.memory.text);
        CHECK(double(plan.memory.arena) == doctest::Approx(double(real.memory.arena)).epsilon(0.1));
        CHECK(plan.gradients + plan.masters + plan.others == real.rest);
        CHECK((plan.masters > 0) == layout.shard_optimizer);
        CHECK((plan.most_in_competition > 0) == (competes && layout.expert > 1));
        if (!competes)
          CHECK(double(plan.out + plan.home + plan.lists) == doctest::Approx(double(real.exchange)).epsilon(0.25));
        CHECK(plan.moved() == plan.out + plan.home + plan.lists + plan.gradients + plan.masters + plan.others);
        if (layout.expert == 1) CHECK(plan.out + plan.home + plan.lists + real.exchange == 0);
      }
  }
}

TEST_CASE("layout costs: sharding moves what it did not have to, and the experts' gradients are their replicas'") {
  const Config config = config_of(kStrategies[0].second);
  const Corpus corpus = load_corpus(config.data);
  const LayoutCosts whole = costs_of(config, corpus, {4, 2, false}), sharded = costs_of(config, corpus, {4, 2, true});
  CHECK(sharded.memory.optimizer < whole.memory.optimizer);
  CHECK(sharded.memory.parameters == whole.memory.parameters);
  CHECK(sharded.others == whole.others);
  CHECK(sharded.gradients + sharded.masters == doctest::Approx(double(whole.gradients)).epsilon(0.01));
  CHECK(sharded.out == whole.out);
  // By hand: 16 sequences in 2 micro-batches on 4 ranks, 16 tokens each, 2 layers; 2 of 4 experts, of which another
  // rank has 2: a token's two are both here with the chance 1/6.
  CHECK(whole.exchanges == 4);
  CHECK(whole.exchange.rows == 27);  // 32 * 5 / 6, rounded up
  CHECK(whole.exchange.pairs == 32);
  CHECK(whole.exchange.row_bytes == 27 * 16 * 4);
  CHECK(whole.out == 4 * 2 * 27 * 16 * 4);
  CHECK(whole.lists == 4 * (32 * 4 + 4 + 2 * 32 * 4));
  CHECK(costs_of(config, corpus, {1, 1, false}).moved() == 0);
  const int64_t plain = costs_of(config, corpus, {4, 1, false}).memory.arena;
  CHECK(costs_of(config, corpus, {4, 2, false}, plain).buffers == whole.memory.arena - plain);
  CHECK(costs_of(config, corpus, {4, 2, false}, 0, 12345).memory.arena == 12345);
}

TEST_CASE("layout costs: with bounds the exchange is what is said, to the byte") {
  for (const char* dtype : {"same", "bf16"}) {
    const Config config =
        config_of(kStrategies[0].second, {"parallel.exchange=bounded", text("parallel.exchange_dtype=", dtype)});
    for (const int ranks : {2, 4}) {
      const EvenExchange e = even_exchange(config, 0, 50, ranks);
      run_on_threads(ranks, [&](Communicator& comm) {
        MoeOptions options = config.moe.layer;
        MoeLayer layer(
            options, *config.moe.router_of(0).options, config.model.width, config.numbers(), {}, comm,
            {.bounded = true, .bound = config.parallel.exchange_bound, .bf16 = std::string(dtype) == "bf16"});
        Tensor x({50, config.model.width}, DType::f32);
        fill_normal(x, {7, uint64_t(comm.rank())}, 1);
        Parameter input({50, config.model.width}, config.numbers());
        copy(input.value, x);
        std::vector<Parameter*> all = parameters(layer);
        all.push_back(&input);
        Tape tape(all);
        RouterContext context;
        context.mode = Mode::train;
        context.everyone = &comm;
        const Tensor offsets = tensor_of<int32_t>({0, 50});
        context.sequence_offsets = offsets;
        const int64_t before = sent(comm);
        const LayerOutput out = layer(input.value, context);
        tape.backward(probe(out.y, 3));
        CHECK(sent(comm) - before == 4 * e.row_bytes + 2 * e.weight_bytes + e.list_bytes);
      });
    }
  }
}

TEST_CASE("layout costs: layouts divide ranks and experts, and a batch that does not divide is refused") {
  const Config config = config_of(kStrategies[0].second);  // 4 experts, micro-batches of 8
  std::vector<std::pair<int64_t, bool>> found;
  for (const Layout& l : possible_layouts(config, 8)) found.emplace_back(l.expert, l.shard_optimizer);
  CHECK(found ==
        std::vector<std::pair<int64_t, bool>>{{1, false}, {1, true}, {2, false}, {2, true}, {4, false}, {4, true}});
  CHECK(possible_layouts(config, 1).size() == 1);
  CHECK(message_of([&] { possible_layouts(config, 3); }) ==
        "train.micro_batch (command line): 8 sequences do not divide over 3 ranks; expected a multiple of 3");
  const Config dense = parse_config("[model]\nlayers = 1\nwidth = 16\nheads = 2\n[train]\nbatch = 4", "dense", {});
  CHECK(possible_layouts(dense, 4).size() == 2);
}
