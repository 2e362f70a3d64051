#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "apps/config_file.h"
#include "apps/evaluate.h"
#include "apps/trainer.h"

using namespace agon;

namespace {

#ifdef AGON_RELEASE
constexpr bool kSkip = false;
#else
constexpr bool kSkip = true;  // a minute at -O3, far more without
#endif

/// Bits per byte of a text under the byte frequencies of another.
double unigram_bits(const Tokens& train, const Tokens& valid) {
  std::array<double, 257> count{};
  count.fill(1);
  for (const int32_t id : train.id) ++count[size_t(id)];
  double sum = 0, bits = 0, bytes = 0;
  for (const double n : count) sum += n;
  for (const int32_t id : valid.id) {
    if (id == 256) continue;
    bits -= std::log2(count[size_t(id)] / sum);
    ++bytes;
  }
  return bits / bytes;
}

}  // namespace

TEST_CASE("learning: after a few hundred steps the quickstart's model is a bit per byte better than byte frequencies" *
          doctest::skip(kSkip)) {
  const Config config =
      parse_config("", "learning",
                   std::vector<std::string>{"model.layers=2", "model.width=64", "moe.experts=8", "moe.expert_width=64",
                                            "train.batch=8", "optimizer.rate=3e-3", "train.steps=300"});
  const auto comm = make_self_communicator();
  Ranks ranks(config, *comm);
  const Corpus corpus = load_corpus(config.data);
  LanguageModel model(config, corpus.tokenizer->vocabulary(), *comm);
  Optimizer optimizer(parameters(model), config.optimizer);
  const TrainingData data(corpus, config.data, config.model.sequence, config.train.batch, 1);
  Trainer trainer(config, model, optimizer, data, ranks);
  for (int64_t i = 0; i < config.train.steps; ++i) trainer.step(i, i);
  const EvaluationData valid(corpus.valid, *corpus.tokenizer, config.data, config.model.sequence, 20000);
  const double model_bits = evaluate(model, valid, 8, Mode::eval, trainer.arena(), *comm).bits_per_byte;
  const double unigram = unigram_bits(corpus.train, corpus.valid);
  MESSAGE("bits per byte: model " << model_bits << ", byte frequencies " << unigram);
  CHECK(unigram >= model_bits + 1);
}
