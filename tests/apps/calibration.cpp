#include "apps/calibration.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "apps/checkpoint_folder.h"
#include "apps/evaluate.h"
#include "apps/manifest.h"
#include "apps/safetensors.h"
#include "apps/training_state.h"
#include "moe/thresholds.h"
#include "tests/apps/threshold_toy.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr const char* kToy = R"(
threads = 1
[data]
builtin_bytes = 60000
[model]
layers = 3
width = 16
heads = 2
sequence = 16
[moe]
experts = 4
expert_width = 12
every = 2
[moe.router]
strategy = "toy_pool"
k = 1.5
[train]
batch = 4
)";

/// A model with a toy in block 1, and the text it is measured on.
struct Toy {
  const PoolToys toys;
  Config config;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  Corpus corpus;
  LanguageModel model;
  EvaluationData data;
  Step arena;

  explicit Toy(const std::vector<std::string>& overrides = {})
      : config(parse_config(kToy, "toy", overrides)),
        corpus(load_corpus(config.data)),
        model(config, corpus.tokenizer->vocabulary(), *comm),
        data(corpus.valid, *corpus.tokenizer, config.data, config.model.sequence) {}
  Calibration made() { return calibrate(model, data, 4, arena); }
  Router& router() { return model.blocks()[1].experts->router(); }
};

}  // namespace

TEST_CASE("calibration: any budget is met, on the text it was made with exactly, pooled and per expert") {
  for (const char* strategy : {"toy_pool", "toy_columns"}) {
    CAPTURE(std::string(strategy));
    for (const double k : {0.5, 1.0, 2.7}) {
      CAPTURE(k);
      Toy toy({text("moe.router.strategy=", strategy)});
      const Calibration c = toy.made();
      CHECK(c.tokens == int64_t(toy.corpus.valid.id.size()) - 1);
      REQUIRE(c.layers.size() == 1);
      const LayerCalibration& layer = c.layers.at(1);
      CHECK(layer.scores.size() == (layer.strategy == "toy_pool" ? 1 : 4));
      Thresholds& thresholds = *toy.router().thresholds();
      CHECK_FALSE(thresholds.known());
      thresholds.experts_per_token = k;
      set_thresholds(thresholds, layer, c.tokens);
      CHECK(thresholds.known());
      // The first layer with experts sees the same vectors however it chose before: only the bins are between.
      const Evaluation e = evaluate(toy.model, toy.data, 4, Mode::eval, toy.arena, *toy.comm);
      CHECK(e.block == std::vector<int64_t>{1});
      CHECK(e.experts_per_token == doctest::Approx(k).epsilon(0.01));
      CHECK(e.experts_per_token_of(0) == e.experts_per_token);
      if (layer.scores.size() == 1) continue;
      for (const double n : e.load[0]) CHECK(n / double(e.tokens) == doctest::Approx(k / 4).epsilon(0.03));
    }
  }
}

TEST_CASE("calibration: no weight changes, and a model that does not choose between tokens needs none") {
  Toy toy;
  std::vector<Tensor> before;
  for (Parameter* p : parameters(toy.model)) before.push_back(clone(p->value));
  toy.made();
  const auto after = parameters(toy.model);
  for (size_t i = 0; i < after.size(); ++i)
    CHECK(std::memcmp(after[i]->value.address(), before[i].address(), size_t(before[i].bytes())) == 0);
  CHECK_FALSE(toy.router().thresholds()->known());
  Toy plain({"moe.router.strategy=token_choice", "moe.router.k=1"});
  CHECK_THROWS_WITH_AS(plain.made(), doctest::Contains("nothing to calibrate"), UserError);
}

TEST_CASE("calibration: a file and back serves the same thresholds") {
  const TemporaryFolder folder;
  for (const char* strategy : {"toy_pool", "toy_columns"}) {
    Toy toy({text("moe.router.strategy=", strategy)});
    Calibration c = toy.made();
    c.source = "some text";
    c.weights = "0123456789abcdef";
    c.write(folder / "calibration.safetensors");
    const Calibration d = Calibration::read(folder / "calibration.safetensors");
    CHECK(d.source == c.source);
    CHECK(d.tokens == c.tokens);
    CHECK(d.weights == c.weights);
    REQUIRE(d.layers.size() == 1);
    CHECK(d.layers.at(1).strategy == strategy);
    CHECK(d.layers.at(1).options == c.layers.at(1).options);
    CHECK(threshold_for(d.layers.at(1), d.tokens, 1.3) == threshold_for(c.layers.at(1), c.tokens, 1.3));
    CHECK(misfit(d, toy.model, c.weights).empty());
  }
}

TEST_CASE("calibration: of other weights, options or layers is refused in words") {
  const auto made_for = [](const std::vector<std::string>& overrides) { return Toy(overrides).made(); };
  Calibration c = made_for({});
  Toy toy;
  CHECK(misfit(c, toy.model, "").empty());
  CHECK(contains(misfit(c, toy.model, "other"), "other weights"));
  // Budget, scope and coefficients do not matter.
  const Calibration same = made_for({"moe.router.k=1", "moe.router.scope=sequence", "moe.router.z_coefficient=0.1"});
  CHECK(misfit(same, toy.model, "").empty());
  CHECK(contains(misfit(made_for({"moe.router.alpha=0.5"}), toy.model, ""), "alpha: 0.5 -> 1.0"));
  CHECK(contains(misfit(made_for({"moe.router.strategy=toy_columns"}), toy.model, ""), "toy_columns -> toy_pool"));
  CHECK(contains(misfit(made_for({"moe.every=1"}), toy.model, ""), "has 3 with experts, the model 1"));
  c.layers.clear();
  CHECK(contains(misfit(c, toy.model, ""), "none of index 1"));
}

TEST_CASE("calibration: a file that is none, or a damaged one, is refused by name") {
  const TemporaryFolder folder;
  const std::string path = folder / "calibration.safetensors";
  CHECK(contains(user_error([&] { Calibration::read(path); }), path));
  const auto refused = [&](const std::vector<NamedTensor>& tensors, const Metadata& metadata) {
    write_safetensors(path, tensors, metadata);
    const std::string message = user_error([&] { Calibration::read(path); });
    CHECK(contains(message, path));
    return message;
  };
  CHECK(contains(refused({}, {}), "not a calibration"));
  CHECK(contains(refused({}, {{"agon_calibration", "{"}}), "not a calibration"));
  CHECK(contains(refused({}, {{"agon_calibration", R"({"version": 2})"}}), "found version 2"));
  const std::string good =
      R"({"version": 1, "text": "t", "tokens": 3, "weights": "w", "layers": {"1": {"strategy": "s", "options": {}}}})";
  const auto tensors = [](std::vector<int32_t> bin, std::vector<double> count, std::vector<int32_t> offsets) {
    return std::vector<NamedTensor>{
        {"layer.1.bin", tensor_of(bin)}, {"layer.1.count", tensor_of(count)}, {"layer.1.offsets", tensor_of(offsets)}};
  };
  CHECK(contains(refused(tensors({1, 2}, {1, 2}, {0, 3}), {{"agon_calibration", good}}), "offsets"));
  CHECK(contains(refused(tensors({2, 1}, {1, 2}, {0, 2}), {{"agon_calibration", good}}), "ascending"));
  CHECK(contains(refused(tensors({1, 2}, {1, 1}, {0, 2}), {{"agon_calibration", good}}), "2 scores of 3 tokens"));
  write_safetensors(path, tensors({1, 2}, {1, 2}, {0, 2}), {{"agon_calibration", good}});
  CHECK(Calibration::read(path).layers.at(1).scores.size() == 1);
}

TEST_CASE("calibration: beside a manifest it does not harm the checkpoint, and goes with it") {
  const TemporaryFolder folder;
  Toy toy;
  Optimizer optimizer(parameters(toy.model), toy.config.optimizer);
  const auto save = [&](int64_t step) {
    return save_checkpoint(folder.path(), step, model_tensors(toy.model), optimizer_tensors(optimizer), "{}", kToy, {},
                           *toy.comm)
        .path;
  };
  const std::string first = save(1);
  Calibration c = toy.made();
  c.weights = weights_of(first);
  CHECK(c.weights.size() == 16);
  c.write(calibration_path(first));
  CHECK(find_latest_valid(folder.path()).checkpoint->path() == first);
  CHECK(misfit(Calibration::read(calibration_path(first)), toy.model, weights_of(first)).empty());
  for (const int64_t step : {2, 3}) save(step);
  CHECK_FALSE(exists(first));  // two are kept
  // A new checkpoint of the same step does not inherit it.
  Calibration::read([&] {
    c.write(calibration_path(folder / "checkpoints/step-3"));
    return calibration_path(folder / "checkpoints/step-3");
  }());
  CHECK(save(3) == folder / "checkpoints/step-3");
  CHECK_FALSE(exists(calibration_path(folder / "checkpoints/step-3")));
}

GPU_CASE("calibration: the thresholds of a GPU are the CPU's") {
  Toy here({"moe.router.strategy=unified", "data.builtin_bytes=20000"}),
      there({"moe.router.strategy=unified", "data.builtin_bytes=20000", "device=cuda"});
  Step arena(placed(there.model).device());
  const auto thresholds = [](Toy& toy, Step& in) {
    const Calibration c = calibrate(toy.model, toy.data, 4, in);
    set_thresholds(*toy.router().thresholds(), c.layers.at(1), c.tokens);
    return toy.router().thresholds()->value;
  };
  const Tensor a = thresholds(there, arena), b = thresholds(here, here.arena);
  CHECK(a.device() == device_of_case());
  CHECK(relative_error(a, b) < 1e-3);  // a histogram's bins
}
