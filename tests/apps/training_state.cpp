#include "apps/training_state.h"

#include <doctest/doctest.h>

#include "apps/config_file.h"
#include "core/copy.h"
#include "moe/thresholds.h"
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
  const auto saved = save_checkpoint(folder.path(), 3, model, optimizer_tensors(optimizer), "{}", config, {}, *comm);
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

namespace {

/// A saved model, and a way to load it into others.
struct Saved {
  const TemporaryFolder folder;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  Config config;
  std::string path;

  explicit Saved(const std::string& router) : config(of(router)) {
    LanguageModel model(config, 5, *comm);
    Optimizer optimizer(parameters(model), {});
    each_state(model, [](const std::string&, Tensor& t) { fill(t, 0.75); });
    path =
        save_checkpoint(folder.path(), 3, model_tensors(model), optimizer_tensors(optimizer), "{}", "", {}, *comm).path;
  }
  static Config of(const std::string& router) {
    return parse_config(
        "[model]\nlayers = 2\nwidth = 8\nheads = 2\nsequence = 4\n[moe]\nexperts = 2\n"
        "shared_experts = 1\n[moe.router]\nk = 1\n" +
            router,
        "test");
  }
  std::unique_ptr<LanguageModel> load(const std::string& router, bool lenient) const {
    auto model = std::make_unique<LanguageModel>(of(router + "\n[[moe.layer]]\nindex = 0\n"), 5, *comm);
    each_parameter(*model, [](const std::string&, Parameter& p) { fill(p.master, 7); });
    load_model(Checkpoint(path), *model, lenient ? &config : nullptr);
    each_parameter(*model, [](const std::string&, Parameter& p) { CHECK(p.value.data<float>()[0] != 7); });
    return model;
  }
  static std::vector<double> states(LanguageModel& model) {
    std::vector<double> first;
    each_state(model, [&](const std::string&, Tensor& t) { first.push_back(t.data<float>()[0]); });
    return first;
  }
};

const std::string kChoice = "strategy = \"token_choice\"", kUnified = "strategy = \"unified\"",
                  kColumns = "strategy = \"expert_choice\"", kCompetition = "strategy = \"competition\"";

}  // namespace

TEST_CASE(
    "training state: a layer of another strategy starts its routing state anew, and everything else is as saved") {
  const std::vector<std::string> all{kChoice, kUnified, kColumns, kCompetition};
  for (const std::string& from : all) {
    const Saved saved(from);
    for (const std::string& to : all) {
      CAPTURE(from);
      CAPTURE(to);
      if (from == to) {
        const std::vector<double> kept(to == kCompetition ? 0 : 2, 0.75);
        CHECK(Saved::states(*saved.load(to, true)) == kept);
        CHECK(Saved::states(*saved.load(to, false)) == kept);
        continue;
      }
      const auto model = saved.load(to, true);
      for (const double state : Saved::states(*model)) CHECK((to == kChoice ? state == 0 : std::isnan(state)));
      CHECK_THROWS_AS(saved.load(to, false), UserError);
    }
  }
}

TEST_CASE("training state: thresholds learned for other scores or another budget are forgotten") {
  const Saved saved(kUnified);
  for (const char* same : {"", "\nscope = \"sequence\"", "\nz_coefficient = 0.1", "\nthreshold_decay = 0.5"})
    CHECK(Saved::states(*saved.load(kUnified + same, true)) == std::vector<double>{0.75, 0.75});
  for (const double state : Saved::states(*saved.load(kUnified + "\nalpha = 0.25", true))) CHECK(std::isnan(state));
}

TEST_CASE("training state: what is missing or too many is named, with the nearest name there is") {
  Saved saved(kChoice);
  CHECK(contains(user_error([&] { saved.load(kUnified, false); }),
                 "has no tensor blocks.0.feed_forward.router.threshold [1], which this model needs; the nearest name "
                 "there is blocks.0.feed_forward.router."));
  // Where the strategies are the same, a missing state is an error too; so is a parameter that has no place.
  const auto comm = make_self_communicator();
  LanguageModel model(Saved::of(kChoice), 5, *comm);
  Optimizer optimizer(parameters(model), {});
  auto tensors = model_tensors(model);
  CHECK(tensors.back().name == "blocks.1.feed_forward.router.bias");
  tensors.pop_back();
  save_checkpoint(saved.folder.path(), 4, tensors, optimizer_tensors(optimizer), "{}", "", {}, *comm);
  saved.path = saved.folder / "checkpoints/step-4";
  CHECK(
      contains(user_error([&] { saved.load(kChoice, true); }), "has no tensor blocks.1.feed_forward.router.bias [2]"));
  saved.load(kUnified, true);
  tensors.push_back({"blocks.1.feed_forward.router.extra", tensor_of<float>({1})});
  auto moments = optimizer_tensors(optimizer);
  save_checkpoint(saved.folder.path(), 4, tensors, moments, "{}", "", {}, *comm);
  saved.load(kUnified, true);  // state of a strategy that knows more
  moments.push_back({"first.blocks.1.feed_forward.router.extra", tensor_of<float>({1})});
  save_checkpoint(saved.folder.path(), 4, tensors, moments, "{}", "", {}, *comm);
  CHECK(contains(user_error([&] { saved.load(kUnified, true); }), "router.extra [1] has no place in this model"));
}
