#include <fmt/format.h>

#include "apps/account.h"
#include "apps/bench.h"
#include "apps/config_file.h"
#include "apps/trainer.h"
#include "core/profile.h"

namespace agon {

namespace {

constexpr const char* kTiny = R"(
[data]
builtin_bytes = 60000
[model]
layers = 2
width = 16
heads = 2
sequence = 16
[moe]
experts = 4
expert_width = 12
[train]
batch = 2
)";

struct TrainBench {
  Config config;
  std::unique_ptr<Communicator> self = make_self_communicator();
  Ranks ranks;
  Corpus corpus;
  LanguageModel model;
  Optimizer optimizer;
  TrainingData data;
  Trainer trainer;

  TrainBench(const Config& c, Device device, Communicator* all)
      : config(c),
        ranks(c, all ? *all : *self),
        corpus(load_corpus(c.data)),
        model(c, corpus.tokenizer->vocabulary(), *ranks.experts.group),
        optimizer(moved(device), c.optimizer, c.parallel, ranks),
        data(corpus, c.data, c.model.sequence, c.train.batch, uint64_t(c.seed)),
        trainer(c, model, optimizer, data, ranks) {}

 private:
  std::vector<Parameter*> moved(Device device) {
    move_to(model, device);
    return parameters(model);
  }
};

std::string on_ranks(const Ranks& ranks) {
  const int spread = ranks.experts.group->size();
  return ranks.size() == 1 ? "" : fmt::format(", ranks {} x {}", spread, ranks.size() / spread);
}

}  // namespace

Config train_config(const BenchOptions& o) {
  std::vector<std::string> overrides{o.device.kind == Device::cuda ? "device=cuda" : "device=cpu",
                                     o.dtype == DType::bf16 ? "precision=bf16" : "precision=fp32"};
  overrides.insert(overrides.end(), o.overrides.begin(), o.overrides.end());
  return o.tiny ? parse_config(kTiny, "tiny", overrides) : load_config(o.config, overrides);
}

BenchCases train_cases(const BenchOptions& o) {
  const Config config = train_config(o);
  const auto bench = std::make_shared<TrainBench>(config, o.device, o.ranks);
  const Account costs = account(bench->model);
  const double tokens = double(bench->data.tokens_per_step());
  BenchCase c{.group = "train",
              .name = config.moe.enabled ? config.moe.router.strategy : "dense",
              .shape = fmt::format("{}, {:.1f}M active of {:.1f}M, {} x {}{}", o.tiny ? "tiny" : o.config,
                                   costs.active / 1e6, double(costs.parameters) / 1e6, config.train.batch,
                                   config.model.sequence, on_ranks(bench->ranks)),
              .dtype = config.numbers().compute};
  c.flops = costs.training_flops() * tokens;
  // Weights read in both passes, gradients written and read, and what the optimizer moves.
  c.bytes = bench->ranks.size() * (2 * double(costs.value_bytes) + (2 + 6) * double(costs.gradient_bytes));
  c.tokens = tokens;
  c.own_arena = true;
  c.prepare = [=](int64_t) {
    const auto parts = std::make_shared<std::map<std::string, double>>();
    const int64_t middle = config.train.steps / 2;  // where experts compete as often as in most of the training
    const auto once = [=](int64_t turn) {
      start_timing();
      bench->trainer.step(middle + turn % (config.train.steps - middle), turn);
      const auto seconds = stop_timing();
      if (turn < 2) return;  // these find out what memory it takes, and take it
      for (const auto& [part, s] : seconds) (*parts)[part] += s;
    };
    return BenchRun{once,
                    {{"parameters", double(costs.parameters)},
                     {"active_parameters", costs.active},
                     {"vocabulary", double(bench->corpus.tokenizer->vocabulary())}},
                    parts};
  };
  return {c};
}

}  // namespace agon
