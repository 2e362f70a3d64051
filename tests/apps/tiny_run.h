#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/config_file.h"
#include "apps/trainer.h"
#include "core/parallel.h"

namespace agon::testing {

inline constexpr const char* kTiny = R"(
threads = 1
[data]
builtin_bytes = 60000
[model]
layers = 2
width = 16
heads = 2
sequence = 16
dropout = 0.1
[moe]
experts = 4
expert_width = 12
every = 2
[train]
steps = 20
batch = 4
[optimizer]
warm_up = 5
)";

inline constexpr const char* kTinyRouter = R"(
[moe.router]
k = 2
z_coefficient = 0.001
bias_rate = 0.001
)";

/// The model, where its configuration says.
inline LanguageModel& placed(LanguageModel& model) {
  move_to(model, model.config().use_device());
  return model;
}

/// A whole run without files.
struct Tiny {
  Config config;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  Ranks ranks;
  Corpus corpus;
  LanguageModel model;
  Optimizer optimizer;
  TrainingData data;
  Trainer trainer;

  /// `router`: the section [moe.router].
  explicit Tiny(const std::vector<std::string>& overrides = {}, const std::string& router = kTinyRouter)
      : config(parse_config(kTiny + router, "tiny", overrides)),
        ranks(config, *comm),
        corpus(load_corpus(config.data)),
        model(config, corpus.tokenizer->vocabulary(), *comm),
        optimizer(parameters(placed(model)), config.optimizer),
        data(corpus, config.data, config.model.sequence, config.train.batch, uint64_t(config.seed)),
        trainer(config, model, optimizer, data, ranks) {
    set_threads(int(config.threads));
  }
  ~Tiny() { set_threads(0); }
  std::vector<double> losses(int64_t n) {
    std::vector<double> all;
    for (int64_t i = 0; i < n; ++i) all.push_back(trainer.step(i, i).loss);
    return all;
  }
};

}  // namespace agon::testing
