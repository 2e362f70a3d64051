#include "apps/config_apply.h"

#include "apps/config_dump.h"
#include "apps/toml.h"
#include "tests/support/message.h"
#include "tests/support/toy_strategy.h"

using namespace agon;
using namespace agon::test;

namespace {

Config made(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  Settings settings = parse_toml(toml, "a.toml");
  for (const std::string& text : overrides) add_override(settings, text);
  return make_config(settings);
}

std::string refused(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  return user_error([&] { made(toml, overrides); });
}

const ToyOptions& toy(const RouterChoice& choice) { return dynamic_cast<const ToyOptions&>(*choice.options); }

}  // namespace

TEST_CASE("config_apply: the defaults, then the file, then the overrides") {
  const Config c =
      made("seed = 9\n[model]\nwidth = 64\n[train]\nsteps = 10\nout = 'a'", {"train.steps=20", "precision=f64"});
  CHECK(c.seed == 9);
  CHECK(c.model.width == 64);
  CHECK(c.model.heads == ModelOptions{}.heads);
  CHECK(c.train.steps == 20);
  CHECK(c.train.out == "a");
  CHECK(c.precision == "f64");
  CHECK(c.origin.at("seed") == "a.toml:1");
  CHECK(c.origin.at("model.width") == "a.toml:3");
  CHECK(c.origin.at("train.steps") == "command line");
  CHECK_FALSE(c.origin.contains("model.heads"));
  CHECK(c.named("model.width") == "model.width (a.toml:3)");
  CHECK(c.named("model.heads") == "model.heads");
}

TEST_CASE("config_apply: a section moe, or an override in it, makes experts") {
  CHECK_FALSE(made("[model]\nwidth = 64").moe.enabled);
  CHECK(made("[moe]").moe.enabled);
  CHECK(made("[moe.router]\nstrategy = 'token_choice'").moe.enabled);
  CHECK(made("", {"moe.experts=16"}).moe.layer.experts == 16);
  CHECK(made("[moe]").moe.router.options != nullptr);
  CHECK(made("[moe]\nevery = 2\nfirst_dense = 1").moe.placement.every == 2);
}

TEST_CASE("config_apply: unknown keys name file, line, column and the nearest key") {
  check_contains(refused("[model]\nwidht = 3"),
                 {"a.toml:2:1: model.widht: unknown key in [model]", "did you mean \"width\"?"});
  check_contains(refused("", {"model.widht=3"}), {"command line: model.widht: unknown key", "did you mean \"width\"?"});
  check_contains(refused("sede = 3"), {"a.toml:1:1: sede: unknown key", "did you mean \"seed\"?"});
  check_contains(refused("[train]\nrate = 1e-3"), {"train.rate", "did you mean \"optimizer.rate\"?"});
  check_contains(refused("steps = 1"), {"a.toml:1:1: steps", "did you mean \"train.steps\"?"});
  check_contains(refused("[parallel]\nqqqqq = 1"), {"parallel.qqqqq", "known are expert"});
  check_contains(refused("\"a\\u0001\" = 1"), {"a\\x01: unknown key"});
}

TEST_CASE("config_apply: unknown sections name the nearest section") {
  check_contains(refused("\n[modle]\nwidth = 3"), {"a.toml:2:2: unknown section [modle]", "did you mean \"model\"?"});
  check_contains(refused("", {"optimiser.rate=1"}), {"command line: unknown section [optimiser]", "\"optimizer\""});
  check_contains(refused("[moe.ruoter]\nk = 1"), {"unknown section [moe.ruoter]", "\"moe.router\""});
  check_contains(refused("[model.width]\nx = 1"), {"model.width is a key, found a section"});
  check_contains(refused("[seed]"), {"seed is a key, found a section"});
  check_contains(refused("model = 3"), {"a.toml:1:1: model: found integer 3", "section [model]"});
  check_contains(refused("", {"model={width=3}"}), {"command line: model: found a table"});
  check_contains(refused("", {"moe.layer.x.k=3"}), {"unknown section [moe.layer.x]"});
  check_contains(refused("", {"moe.layer.03.k=3"}), {"unknown section [moe.layer.03]"});
}

TEST_CASE("config_apply: wrong types and ranges name place and key") {
  check_contains(refused("[model]\nwidth = 'wide'"),
                 {"a.toml:2:1: model.width: found string \"wide\", expected an integer"});
  check_contains(refused("[model]\nlayers = 0"), {"model.layers: found integer 0, expected an integer in 1 .. 10000"});
  check_contains(refused("[model]\nwidth = 2.5"), {"model.width: found number 2.5"});
  check_contains(refused("[model]\ntied = 1"), {"model.tied: found integer 1, expected true | false"});
  check_contains(refused("[model]\nwidth = [1]"), {"found an array"});
  check_contains(refused("[model]\nnorm = 'laier'"), {"one of rms | layer", "did you mean \"layer\"?"});
  check_contains(refused("", {"train.steps=many"}),
                 {"command line: train.steps: found string \"many\", expected an integer"});
  check_contains(refused("precision = 'fp16'"), {"precision", "f64 | fp32 | bf16"});
  CHECK(made("[optimizer]\nclip = 1").optimizer.clip == 1.0);
  CHECK(made("", {"train.steps=1e3"}).train.steps == 1000);
}

TEST_CASE("config_apply: the strategy reads its own keys") {
  const ToyStrategies strategies;
  const Config c = made("[moe.router]\nstrategy = 'toy'\nk = 3\nsharpness = 0.25\nnoisy = true\nrule = 'last'");
  CHECK(c.moe.router.strategy == "toy");
  CHECK(toy(c.moe.router).k == 3);
  CHECK(toy(c.moe.router).sharpness == 0.25);
  CHECK(toy(c.moe.router).noisy);
  CHECK(toy(c.moe.router).rule == "last");
  check_contains(refused("[moe.router]\nstrategy = 'toi'"),
                 {"a.toml:2:1: moe.router.strategy: found string \"toi\"", "\"toy\""});
  check_contains(refused("[moe.router]\nstrategy = 3"), {"moe.router.strategy: found integer 3"});
  check_contains(refused("[moe.router]\nstrategy = 'toy'\nk = 0"), {"a.toml:3:1: moe.router.k", "1 .. 64"});
  check_contains(refused("[moe.router]\nstrategy = 'toy'\nsharp = 0.5"),
                 {"a.toml:3:1: moe.router.sharp", "strategy \"toy\" has no key \"sharp\""});
}

TEST_CASE("config_apply: keys in the file that an override's strategy does not know are refused") {
  const ToyStrategies strategies;
  const std::string file = "[moe.router]\nstrategy = 'toy_extended'\nk = 3\nextra = 1";
  CHECK(toy(made(file).moe.router).extra == 1);
  check_contains(refused(file, {"moe.router.strategy=toy"}),
                 {"a.toml:4:1: moe.router.extra", "strategy \"toy\" has no key \"extra\"", "command line"});
  const Config c = made("[moe.router]\nstrategy = 'toy'\nk = 3", {"moe.router.strategy=toy_extended"});
  CHECK(c.moe.router.strategy == "toy_extended");
  CHECK(toy(c.moe.router).k == 3);
}

TEST_CASE("config_apply: one layer starts from the router's values when the strategy is the same") {
  const ToyStrategies strategies;
  const Config c = made(
      "[moe.router]\nstrategy = 'toy'\nk = 3\nrule = 'last'\n"
      "[[moe.layer]]\nindex = 1\nk = 4\n"
      "[[moe.layer]]\nindex = 2\nstrategy = 'toy_extended'\nextra = 5\n",
      {"moe.router.sharpness=0.125", "moe.layer.3.noisy=true", "moe.layer.1.rule=first"});
  const auto& one = c.moe.router_of(1);
  CHECK(one.strategy == "toy");
  CHECK(toy(one).k == 4);
  CHECK(toy(one).rule == "first");
  CHECK(toy(one).sharpness == 0.125);
  CHECK(c.origin.at("moe.layer.1") == "a.toml:5");
  CHECK(c.origin.at("moe.layer.1.k") == "a.toml:7");
  CHECK(c.origin.at("moe.layer.1.sharpness") == "command line");
  const auto& two = c.moe.router_of(2);
  CHECK(two.strategy == "toy_extended");
  CHECK(toy(two).k == 2);
  CHECK(toy(two).extra == 5);
  const auto& three = c.moe.router_of(3);
  CHECK(toy(three).k == 3);
  CHECK(toy(three).noisy);
  CHECK_FALSE(toy(c.moe.router).noisy);
  CHECK(&c.moe.router_of(0) == &c.moe.router);
  check_contains(refused("[moe.router]\nstrategy='toy'\n[[moe.layer]]\nindex = 1\nextra = 4"),
                 {"a.toml:5:1: moe.layer.1.extra", "strategy \"toy\" has no key"});
}

TEST_CASE("config_apply: axes choose the strategy that takes them, and say where they came from") {
  const Config c = made("[moe.router]\nscore = 'sigmoid'\nselection = 'global'\nk = 1.5");
  CHECK(c.moe.router.strategy == "composed");
  CHECK(c.origin.at("moe.router.strategy") == "a.toml:3");  // token choice has a sigmoid too
  CHECK(made("[moe.router]\nscore = 'sigmoid'").moe.router.strategy == "token_choice");
  CHECK(made("[moe.router]\nscore = 'unified'").moe.router.strategy == "composed");
  CHECK(made("[moe.router]\nscore = 'l2_norm'").moe.router.strategy == "composed_answers");
  CHECK(made("[moe.router]\nstrategy = 'competition'\nscore = 'l2_norm'").moe.router.strategy == "competition");
  CHECK(made("[moe.router]\nk = 1", {"moe.router.selection=per_expert"}).moe.router.strategy == "composed");
  const Config again = made(dump(c));
  CHECK(again.moe.router.strategy == "composed");
  CHECK(again.moe.router.options->experts_per_token() == 1.5);
  check_contains(refused("[moe.router]\nstrategy = 'unified'\nselection = 'global'"),
                 {"a.toml:3:1: moe.router.selection", "strategy \"unified\" has no key"});
  check_contains(refused("[moe.router]\nscore = 'sigmoid'\nselection = 'globl'"),
                 {"a.toml:3:1: moe.router.selection: found string \"globl\"", "did you mean \"global\""});
  check_contains(refused("[moe.router]\nscore = 'sofmax'"), {"a.toml:2:1: moe.router.score: found string \"sofmax\""});
}

TEST_CASE("config_apply: a layer keeps its strategy where that takes the axis, and never drops a preset unseen") {
  const std::string competition = "[moe.router]\nstrategy = 'competition'\nk = 4\nrate = 0.1\n";
  const Config kept = made(competition + "[[moe.layer]]\nindex = 1\nscore = 'l2_norm'");
  CHECK(kept.moe.router_of(1).strategy == "competition");
  CHECK(kept.moe.router_of(1).options->experts_per_token() == 4);
  CHECK(kept.moe.router_of(1).options->competition()->rate == 0.1);
  CHECK(made(competition, {"moe.layer.1.score=l2_norm"}).moe.router_of(1).strategy == "competition");

  check_contains(refused("[moe.router]\nstrategy = 'unified'\n[[moe.layer]]\nindex = 1\nweight = 'over_all'"),
                 {"a.toml:5:1: moe.layer.1.weight", "strategy \"unified\"", "both score and selection"});
  const Config named = made(
      "[moe.router]\nstrategy = 'unified'\nk = 1\n[[moe.layer]]\nindex = 1\nscore = 'unified'\nselection = "
      "'per_expert'");
  CHECK(named.moe.router_of(1).strategy == "composed");

  const Config axes = made(
      "[moe.router]\nscore = 'softmax'\nselection = 'global'\nk = 1.5\n[[moe.layer]]\nindex = 1\nscore = 'l2_norm'");
  CHECK(axes.moe.router_of(1).strategy == "composed_answers");
  CHECK(axes.moe.router_of(1).options->experts_per_token() == 1.5);
  check_contains(dump(axes), {"selection = \"global\"", "score = \"l2_norm\""});
}
