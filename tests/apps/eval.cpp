#include <doctest/doctest.h>

#include <sstream>

#include "tests/apps/run_folder.h"
#include "tests/apps/run_log.h"
#include "tests/apps/threshold_toy.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("eval: the run's own validation loss, another text, realised k") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  const std::string run = (folder.path / "run").string();
  CHECK(eval({run, "", {}}) == 0);
  CHECK(quiet.text().find("realised k     2.0000") != std::string::npos);
  char loss[32];
  std::snprintf(loss, sizeof loss, "loss           %.6f", double(log_of(folder.path / "run")[11]["val_loss"]));
  CHECK(quiet.text().find(loss) != std::string::npos);
  std::ofstream(folder.path / "text") << "The quick brown fox jumps over the lazy dog.\n";
  CHECK(eval({run + "/best", (folder.path / "text").string(), {}}) == 0);
  CHECK(quiet.text().find("tokens         45") !=
        std::string::npos);  // 45 bytes and the end of the document, but the first
  CHECK_THROWS_AS(eval({(folder.path / "nowhere").string(), "", {}}), UserError);
  CHECK_THROWS_AS(eval({run, "", {"model.wdith=3"}}), UserError);
  CHECK_THROWS_AS(eval({run, "", {"model.width=24"}}), UserError);
}

namespace {

/// What eval prints, by the words before the figures: "realised k 1" -> "2.0000 of 2 (...)".
std::string line(const std::string& text, const std::string& name) {
  std::istringstream in(text);
  std::string found;
  for (std::string l; found.empty() && std::getline(in, l);)
    if (l.starts_with(name + ' ')) found = l.substr(l.find_first_not_of(' ', name.size()));
  return found;
}

}  // namespace

TEST_CASE("eval: causal by learned thresholds, the realised k of each layer that has them, no leak") {
  const PoolToys toys;
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  std::ofstream(folder.path / "config.toml", std::ios::app) << "[[moe.layer]]\nindex = 1\nstrategy = \"toy_pool\"\n";
  CHECK(train(folder.run("run")) == 0);
  const std::string run = (folder.path / "run").string();
  EvalArguments a{run, "", {}};
  a.check_leak = true;
  CHECK(eval(a) == 0);
  const std::string causal = quiet.text();
  CHECK(contains(line(causal, "perplexity"), "(causal, context 16)"));
  CHECK(line(causal, "realised k 1").ends_with(" of 2"));
  CHECK(line(causal, "thresholds") == "learned");
  CHECK(line(causal, "realised k 0").empty());
  CHECK(line(causal, "leak").starts_with("earlier positions 0, other sequences 0 (largest change before the head, 12"));
  const double k = std::stod(line(causal, "realised k 1")), both = std::stod(line(causal, "realised k"));
  CHECK(k == doctest::Approx(2).epsilon(0.2));
  CHECK(both == doctest::Approx((k + 2) / 2).epsilon(1e-4));
  CHECK(double(log_of(folder.path / "run")[11]["val_k"]) == doctest::Approx(both).epsilon(1e-4));

  a.noncausal = true;
  CHECK(eval(a) == 0);
  const std::string free = quiet.text().substr(causal.size());
  CHECK(contains(line(free, "perplexity"), "(noncausal, scope batch of 4 sequences, context 16)"));
  CHECK(line(free, "realised k 1") == "2.0000 of 2");
  CHECK(line(free, "thresholds").empty());
  CHECK_FALSE(line(free, "leak").starts_with("earlier positions 0,"));
  a.calibrate = "builtin:domains";
  CHECK_THROWS_AS(eval(a), UserError);

  a.noncausal = false;
  a.overrides = {"moe.layer.1.leaks=true"};
  try {
    eval(a);
    FAIL("a leak is a failure");
  } catch (const Error& e) {
    CHECK(e.exit_code() == 1);
    CHECK(contains(e.what(), "the model is not causal"));
  }
}

TEST_CASE("eval: another strategy on a trained model, with shared experts, needs thresholds and no training") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run", {"moe.shared_experts=1", "moe.shared_gate=true"})) == 0);
  const std::string run = (folder.path / "run").string(), model = folder.checkpoint("run", 12) + "/model.safetensors";
  const std::string weights = folder.bytes(model);
  size_t before = quiet.text().size();
  const auto shown = [&](const EvalArguments& a) {
    CHECK(eval(a) == 0);
    const std::string all = quiet.text().substr(before);
    before = quiet.text().size();
    return all;
  };
  const std::vector<std::vector<std::string>> strategies{
      {"moe.router.strategy=unified"},
      {"moe.router.strategy=unified", "moe.router.norm=row_all", "moe.router.k=1.5", "moe.router.alpha=0.3"},
      {"moe.router.strategy=expert_choice"},
      {"moe.router.strategy=composed", "moe.router.selection=global", "moe.router.score=sigmoid"}};
  for (const auto& overrides : strategies) {
    CAPTURE(overrides[0]);
    const double k = overrides.size() == 4 ? 1.5 : 2;
    EvalArguments a{run, "", overrides};
    CHECK(contains(user_error([&] { eval(a); }), "layers 0 to 1 (" + overrides[0].substr(20)));
    CHECK(contains(user_error([&] { eval(a); }), "--calibrate TEXT"));
    a.noncausal = true;
    CHECK(std::stod(line(shown(a), "realised k")) == doctest::Approx(k).epsilon(0.005));
    a.noncausal = false;
    a.calibrate = "builtin:domains";
    a.check_leak = true;
    const std::string causal = shown(a);
    CHECK(std::stod(line(causal, "realised k")) == doctest::Approx(k).epsilon(0.1));
    CHECK(contains(line(causal, "thresholds"), "calibrated in this run with builtin:domains"));
    CHECK(line(causal, "leak").starts_with("earlier positions 0, other sequences 0 "));
    CHECK_FALSE(fs::exists(folder.checkpoint("run", 12) + "/calibration.safetensors"));
  }
  CHECK(folder.bytes(model) == weights);
  // One that never competes at inference needs nothing; one whose scores see later tokens cannot be helped.
  CHECK(contains(line(shown({run, "", {"moe.router.strategy=competition"}}), "perplexity"), "(causal, context 16)"));
  EvalArguments never{run, "", {"moe.router.strategy=unified", "moe.router.expert_score=softmax"}};
  never.calibrate = "builtin:domains";
  CHECK(contains(user_error([&] { eval(never); }), "layers 0 to 1 (unified) depend on later tokens"));
  never.calibrate.clear();
  CHECK(contains(user_error([&] { eval(never); }), "evaluate it with --noncausal"));
  never.noncausal = true;
  CHECK(contains(line(shown(never), "perplexity"), "(noncausal, scope batch of 4 sequences, context 16)"));
}
