#include "apps/training_state.h"

#include <doctest/doctest.h>

#include "apps/config_file.h"
#include "core/copy.h"
#include "tests/support/gradient.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("training state: JSON and back, and what is refused") {
  TrainingState s;
  s.step = 7;
  s.best_val_loss = 1.25;
  s.fingerprint = 0xfedcba9876543210u;
  s.tokenizer = "{\"kind\": \"bytes\"}\n";
  const TrainingState t = TrainingState::from_json(s.json(), "test");
  CHECK(t.step == 7);
  CHECK(t.best_val_loss == 1.25);
  CHECK(t.fingerprint == s.fingerprint);
  CHECK(t.tokenizer == s.tokenizer);
  for (const char* bad : {"", "{}", "[1]", "{\"step\": \"x\"}"})
    CHECK_THROWS_WITH_AS(TrainingState::from_json(bad, "RUN/step-3"), doctest::Contains("RUN/step-3"), UserError);
}

TEST_CASE("training state: a checkpoint of one precision fills a model of another") {
  const TemporaryFolder folder;
  const auto comm = make_self_communicator();
  const char* config =
      "[model]\nlayers = 1\nwidth = 8\nheads = 2\nsequence = 4\n[moe]\nexperts = 2\n[moe.router]\nbias_rate = 0.001\n";
  LanguageModel f32(parse_config(config, "test"), 5, *comm);
  Optimizer optimizer(parameters(f32), {});
  const auto model = model_tensors(f32);
  CHECK(model.back().name == "blocks.0.feed_forward.router.bias");
  const auto saved = save_checkpoint(folder.path(), 3, model, optimizer_tensors(optimizer), "{}", config);
  const Checkpoint checkpoint(saved.path);
  for (const char* precision : {"precision=bf16", "precision=f64"}) {
    LanguageModel other(parse_config(config, "test", std::vector<std::string>{precision, "seed=9"}), 5, *comm);
    load_model(checkpoint, other);
    const auto a = parameters(f32), b = parameters(other);
    for (size_t i = 0; i < a.size(); ++i) {
      CHECK(relative_error(b[i]->master, a[i]->master) == 0);
      CHECK(identical(b[i]->value, converted(b[i]->master, b[i]->value.dtype())));
    }
  }
  LanguageModel wider(parse_config(config, "test", std::vector<std::string>{"model.width=16"}), 5, *comm);
  CHECK_THROWS_AS(load_model(checkpoint, wider), UserError);
  LanguageModel fewer(parse_config(config, "test", std::vector<std::string>{"model.tied=true"}), 5, *comm);
  CHECK_THROWS_WITH_AS(load_model(checkpoint, fewer), doctest::Contains("head"), UserError);
}
