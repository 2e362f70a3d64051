#include "apps/trainer.h"

#include <doctest/doctest.h>

#include <limits>

#include "apps/config_file.h"
#include "apps/evaluate.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

const char* const kTiny = R"(
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
[moe.router]
k = 2
z_coefficient = 0.001
bias_rate = 0.001
[train]
steps = 20
batch = 4
[optimizer]
warm_up = 5
)";

/// A whole run without files.
struct Tiny {
  Config config;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  Corpus corpus;
  LanguageModel model;
  Optimizer optimizer;
  TrainingData data;
  Trainer trainer;

  explicit Tiny(const std::vector<std::string>& overrides = {})
      : config(parse_config(kTiny, "tiny", overrides)),
        corpus(load_corpus(config.data)),
        model(config, corpus.tokenizer->vocabulary(), *comm),
        optimizer(parameters(model), config.optimizer),
        data(corpus, config.data, config.model.sequence, config.train.batch, uint64_t(config.seed)),
        trainer(config, model, optimizer, data) {
    set_threads(int(config.threads));
  }
  ~Tiny() { set_threads(0); }
  std::vector<double> losses(int64_t n) {
    std::vector<double> all;
    for (int64_t i = 0; i < n; ++i) all.push_back(trainer.step(i, i).loss);
    return all;
  }
};

}  // namespace

TEST_CASE("trainer: learns, reports losses and loads") {
  Tiny tiny({"optimizer.rate=0.01"});
  StepReport first, last;
  for (int64_t i = 0; i < 20; ++i) {
    StepReport r = tiny.trainer.step(i, 0);
    if (i == 0) first = r;
    last = r;
  }
  CHECK(first.loss == doctest::Approx(5.55).epsilon(0.02));  // log 257
  CHECK(last.loss < first.loss - 1);
  CHECK(last.step == 20);
  CHECK(last.tokens == 64);
  CHECK(first.losses.at("balance") == doctest::Approx(1).epsilon(0.2));
  CHECK(first.losses.contains("z"));
  REQUIRE(last.load.size() == 1);
  double sum = 0;
  for (const double n : last.load[0]) sum += n;
  CHECK(sum == 128);
}

TEST_CASE("trainer: micro-batches add up to the whole batch") {
  const std::vector<std::string> f64{"precision=f64", "moe.router.balance_coefficient=0", "moe.router.bias_rate=0"};
  auto split = f64;
  split.push_back("train.micro_batch=1");
  Tiny whole(f64), parts(split);
  for (int64_t i = 0; i < 3; ++i) {
    const StepReport a = whole.trainer.step(i, i), b = parts.trainer.step(i, i);
    CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-12));
    CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(1e-12));
    CHECK(a.load == b.load);
  }
}

TEST_CASE("trainer: the same bits twice and at any thread count, in every precision") {
  for (const char* precision : {"precision=fp32", "precision=bf16", "precision=f64"}) {
    const auto once = Tiny({precision}).losses(4);
    CHECK(once == Tiny({precision}).losses(4));
    CHECK(once == Tiny({precision, "threads=3"}).losses(4));
    CHECK(once != Tiny({precision, "seed=2"}).losses(4));
  }
}

TEST_CASE("trainer: bf16 stays close to f32") {
  const auto f32 = Tiny().losses(10), bf16 = Tiny({"precision=bf16"}).losses(10);
  for (size_t i = 0; i < f32.size(); ++i) CHECK(bf16[i] == doctest::Approx(f32[i]).epsilon(0.01));
}

TEST_CASE("trainer: what measure says is what a step takes") {
  Tiny tiny;
  const size_t expected = tiny.trainer.measure(4);
  tiny.losses(3);
  CHECK(tiny.trainer.arena().extent() == expected);
  CHECK(tiny.trainer.measure(1) < expected);
}

TEST_CASE("trainer: a loss that is not finite names step, layer and tensor, and changes nothing") {
  Tiny tiny;
  tiny.losses(1);
  Parameter* poisoned = nullptr;
  each_parameter(tiny.model, [&](const std::string& path, Parameter& p) {
    if (path == "blocks.1.attention.out.weight") poisoned = &p;
  });
  REQUIRE(poisoned);
  std::vector<Tensor> before;
  for (Parameter* p : tiny.optimizer.parameters()) before.push_back(clone(p->master));
  poisoned->value.data<float>()[3] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(tiny.trainer.step(1, 1), doctest::Contains("parameter blocks.1.attention.out.weight"), Error);
  poisoned->value.data<float>()[3] = 3e38f;  // finite, but not what it makes
  CHECK_THROWS_WITH_AS(tiny.trainer.step(1, 1), doctest::Contains("step 1"), Error);
  poisoned->value.data<float>()[3] = before[size_t(std::ranges::find(tiny.optimizer.parameters(), poisoned) - tiny.optimizer.parameters().begin())].data<float>()[3];
  for (size_t i = 0; i < before.size(); ++i) CHECK(identical(before[i], tiny.optimizer.parameters()[i]->master));
}

TEST_CASE("evaluate: every target once, whatever the batch, and the loss of the head") {
  Tiny tiny;
  const EvaluationData data(tiny.corpus.valid, *tiny.corpus.tokenizer, tiny.config.data, 16);
  Step arena;
  const Evaluation one = evaluate(tiny.model, data, 1, Mode::eval, arena), many = evaluate(tiny.model, data, 7, Mode::eval, arena);
  CHECK(one.tokens == int64_t(tiny.corpus.valid.id.size()) - 1);
  CHECK(one.tokens == many.tokens);
  CHECK(one.loss == doctest::Approx(many.loss).epsilon(1e-12));
  CHECK(one.loss == doctest::Approx(5.55).epsilon(0.02));
  CHECK(one.bits_per_byte == doctest::Approx(one.loss * double(one.tokens) / double(one.bytes) / std::log(2.0)));
  CHECK(one.experts_per_token == 2);
  CHECK(one.load == many.load);
}
