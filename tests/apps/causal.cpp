#include "apps/causal.h"

#include <doctest/doctest.h>

#include "apps/evaluate.h"
#include "moe/thresholds.h"
#include "tests/apps/run_folder.h"
#include "tests/apps/threshold_toy.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// A run whose second layer chooses between tokens, trained for a few steps.
struct ToyRun {
  const PoolToys toys;
  const Folder folder;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  std::string run = (folder.path / "run").string();

  ToyRun() {
    const Quiet quiet((folder.path / "out").string());
    std::ofstream(folder.path / "config.toml", std::ios::app) << "[[moe.layer]]\nindex = 1\nstrategy = \"toy_pool\"\n";
    CHECK(train(folder.run("run")) == 0);
    std::ofstream(folder.path / "text") << std::string(300, 'a') + "The quick brown fox.\n" + std::string(99, 'b');
  }
  LoadedModel open(const std::vector<std::string>& overrides = {}) const { return open_model(run, overrides, *comm); }
  void calibrate(const std::vector<std::string>& overrides = {}) const {
    const LoadedModel loaded = open(overrides);
    Step arena;
    calibrate_with(loaded, (folder.path / "text").string(), arena).write(calibration_path(loaded.path));
  }
};

double threshold(LoadedModel& loaded, int64_t block) {
  return loaded.model->blocks()[size_t(block)].experts->router().thresholds()->value.item();
}

}  // namespace

TEST_CASE("causal: learned thresholds first, a calibration where there are none, this run's before all") {
  const ToyRun t;
  LoadedModel learned = t.open();
  CHECK(thresholded_layers(*learned.model) == std::map<int64_t, std::string>{{1, "toy_pool"}});
  CHECK(settle_thresholds(learned, {}, {}, true).at(1) == "learned");
  const double value = threshold(learned, 1);
  t.calibrate();
  LoadedModel both = t.open();
  CHECK(settle_thresholds(both, {}, {}, true).at(1) == "learned");
  CHECK(threshold(both, 1) == value);

  // What is not the thresholds' business leaves them, what is makes the calibration's take their place.
  for (const char* other : {"moe.layer.1.scope=sequence", "moe.layer.1.z_coefficient=0.1", "precision=f64"}) {
    LoadedModel same = t.open({other});
    CHECK(settle_thresholds(same, {}, {}, true).at(1) == "learned");
  }
  LoadedModel other = t.open({"moe.layer.1.k=1"});
  const std::string source = settle_thresholds(other, {}, {}, true).at(1);
  CHECK(contains(source, "calibration.safetensors of "));
  CHECK(contains(source, "text, 420 tokens"));
  CHECK(threshold(other, 1) != value);

  LoadedModel made = t.open();
  Step arena;
  CHECK(
      contains(settle_thresholds(made, calibrate_with(made, "builtin:domains", arena), {}, true).at(1), "in this run"));
  CHECK(threshold(made, 1) != value);
}

TEST_CASE("causal: without thresholds refused, naming layers, reasons and remedies") {
  const ToyRun t;
  const auto refusal = [&](const std::vector<std::string>& overrides) {
    LoadedModel loaded = t.open(overrides);
    return user_error([&] { settle_thresholds(loaded, {}, overrides, true); });
  };
  const std::string message = refusal({"moe.layer.1.k=1"});
  for (const char* part : {"step-12: layer 1 (toy_pool) chooses between tokens", "layer 1: k: 2 -> 1",
                           "agon calibrate ", "TEXT 'moe.layer.1.k=1', or for one evaluation with --calibrate TEXT"})
    CHECK(contains(message, part));
  CHECK(contains(refusal({"moe.router.strategy=toy_columns"}), "layer 0 (toy_columns) chooses"));
  const std::string both = refusal({"moe.router.strategy=toy_columns", "moe.layer.1.alpha=2"});
  CHECK(contains(both, "layers 0 (toy_columns), 1 (toy_pool) choose"));
  CHECK(contains(both, "layers 0: strategy: token_choice -> toy_columns, 1: alpha: 1.0 -> 2.0"));
  CHECK(contains(refusal({"moe.router.strategy=toy_pool", "moe.layer.1.k=1", "moe.router.k=1"}),
                 "layers 0 to 1 (toy_pool) choose"));
  CHECK(refusal({"moe.layer.1.strategy=token_choice"}).empty());
  t.calibrate();
  CHECK(refusal({"moe.layer.1.k=1"}).empty());
  CHECK(contains(refusal({"moe.layer.1.alpha=2"}),
                 "calibration.safetensors was made for other options (then -> now) of "
                 "layer 1: alpha: 1.0 -> 2.0"));
  put(calibration_path(t.open().path), "nonsense");
  CHECK(contains(refusal({"moe.layer.1.k=1"}), "calibration.safetensors: "));
}

TEST_CASE("causal: what a figure was made under, in words") {
  const ToyRun t;
  LoadedModel loaded = t.open();
  CHECK(scope_in_words(*loaded.model, Mode::eval, 4) == "causal, context 16");
  CHECK(scope_in_words(*loaded.model, Mode::eval_noncausal, 4) == "noncausal, scope batch of 4 sequences, context 16");
  LoadedModel grouped = t.open({"moe.layer.1.group=2"});
  CHECK(scope_in_words(*grouped.model, Mode::eval_noncausal, 4) == "noncausal, scope batch of 2 sequences, context 16");
  LoadedModel alone = t.open({"moe.layer.1.scope=sequence"});
  CHECK(scope_in_words(*alone.model, Mode::eval_noncausal, 4) == "noncausal, scope sequence, context 16");
  LoadedModel scores = t.open({"moe.layer.1.strategy=composed", "moe.layer.1.score=unified",
                               "moe.layer.1.expert_score=softmax", "moe.layer.1.scope=time_step"});
  CHECK(thresholded_layers(*scores.model).empty());
  CHECK(contains(scope_in_words(*scores.model, Mode::eval_noncausal, 4), "noncausal, scope time_step of 4 sequences"));
  LoadedModel plain = t.open({"moe.layer.1.strategy=token_choice"});
  CHECK(contains(scope_in_words(*plain.model, Mode::eval_noncausal, 4), "no layer chooses between tokens"));
  CHECK(thresholds_in_words({{0, "a"}, {5, "a"}}) == "thresholds     a\n");
  CHECK(thresholds_in_words({{0, "a"}, {12345, "b"}}) == "thresholds 0   a\nthresholds 12345 b\n");
  CHECK(thresholds_in_words({}).empty());
  CHECK(budget_of(loaded.config) == 2);
  CHECK(budget_of(t.open({"moe.layer.1.k=0.5"}).config) == 1.25);
  CHECK(budget_of(Config()) == 0);
}
