#include "apps/costs.h"

#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("costs: what lasts is the model, its gradients and the text, what comes and goes a step's arena") {
  Tiny tiny;
  const MemoryUse use = lasting_memory(tiny.model, tiny.corpus);
  int64_t values = 0;
  for (const Parameter* p : tiny.optimizer.parameters()) values += p->value.bytes();
  CHECK(use.parameters == values);
  CHECK(use.gradients == values);
  CHECK(use.optimizer == 0);
  CHECK(use.text == int64_t(tiny.corpus.train.id.size() + tiny.corpus.valid.id.size()) * 4);
  const TemporaryFolder folder;
  const Quiet quiet(folder / "out");
  show_costs(tiny.config, tiny.model, tiny.trainer, use, true, tiny.ranks);
  CHECK(quiet.text().find("largest micro-batch that fits") != std::string::npos);
  CHECK(quiet.text().find(short_bytes(double(tiny.trainer.measure(4)))) != std::string::npos);
}

TEST_CASE("costs: only the first of many ranks says them, for its part of a micro-batch") {
  const TemporaryFolder folder;
  std::string shown[2];
  for (const int ranks : {1, 2}) {
    const Quiet quiet(folder / "out");
    run_on_threads(ranks, [&](Communicator& all) {
      const Config config = parse_config(std::string(kTiny) + kTinyRouter, "tiny");
      Ranks of(config, all);
      const Corpus corpus = load_corpus(config.data);
      LanguageModel model(config, corpus.tokenizer->vocabulary(), *of.experts.group);
      Optimizer optimizer(parameters(model), config.optimizer, config.parallel, of);
      const TrainingData data(corpus, config.data, config.model.sequence, config.train.batch, 1);
      Trainer trainer(config, model, optimizer, data, of);
      show_costs(config, model, trainer, lasting_memory(model, corpus), false, of);
    });
    shown[ranks - 1] = quiet.text();
  }
  for (const std::string& s : shown) CHECK(std::ranges::count(s, '\n') == std::ranges::count(shown[0], '\n'));
  CHECK(shown[0].find(" a rank") == std::string::npos);
  CHECK(shown[1].find(" a rank; largest micro-batch that fits") != std::string::npos);
}
