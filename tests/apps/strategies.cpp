// The strategies in whole models and whole runs.
#include <doctest/doctest.h>

#include "moe/thresholds.h"
#include "ops/elementwise.h"
#include "ops/linear_cross_entropy.h"
#include "tests/apps/run_folder.h"
#include "tests/apps/run_log.h"
#include "tests/apps/tiny.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Strategy {
  const char* name;
  const char* router;
  bool competes = false;
};

constexpr Strategy kStrategies[] = {
    {"token choice", "[moe.router]\nstrategy = 'token_choice'\nk = 2\nnorm = 'topk'\nz_coefficient = 0.1"},
    {"expert choice", "[moe.router]\nstrategy = 'expert_choice'\nscope = 'sequence'\nk = 1.5"},
    {"unified", "[moe.router]\nstrategy = 'unified'\nk = 1.5\nnorm = 'row_all'"},
    {"competition", "[moe.router]\nstrategy = 'competition'\nrate = 0.5\nwarm_up = 0", true},
    {"competition with losers",
     "[moe.router]\nstrategy = 'competition'\nrate = 0.5\nwarm_up = 0\nloser_gradient = true\nrouter_coefficient = 0\n"
     "balance_coefficient = 0.5\ndiversity_coefficient = 0.3\nscore = 'l2_norm'",
     true},
    {"free axes", "[moe.router]\nscore = 'silu_mean'\nselection = 'global'\nweight = 'over_selected'\nrate = 0.5",
     true},
};

constexpr const char* kModel = R"(
[model]
layers = 2
width = 8
heads = 2
sequence = 6
[moe]
experts = 4
expert_width = 6
shared_experts = 1
)";

}  // namespace

TEST_CASE("strategies: gradients of whole models agree with finite differences, in competition steps too") {
  const auto comm = make_self_communicator();
  for (const Strategy& s : kStrategies)
    for (const bool compete : {false, true}) {
      if (compete && !s.competes) continue;
      CAPTURE(std::string(s.name));
      CAPTURE(compete);
      LanguageModel model(
          parse_config(std::string(kModel) + s.router, "test", std::vector<std::string>{"precision=f64"}), 11, *comm);
      uint64_t seed = 20;
      each_parameter(model, [&](const std::string& name, Parameter& p) {
        const bool gain = name.ends_with("gain");
        fill_normal(p.master, {seed++, 1}, gain ? 0.1 : 0.4);
        if (gain)
          for (double& v : p.master.data<double>()) v += 1;
        p.refresh();
      });
      const Sequences at = tiny_sequences(2, 6, 11);
      const Tensor target = tiny_sequences(2, 6, 11, 9).token;
      RouterContext context;
      context.compete = compete;
      std::vector<Pairs> decided;
      context.decided = &decided;
      model(at, context);
      context.decided = nullptr;
      context.held = decided;
      const auto all = parameters(model);
      CHECK(gradient_error(
                all,
                [&] {
                  const Passed passed = model(at, context);
                  Tensor loss = linear_cross_entropy(passed.hidden, model.head(), target, 12).loss;
                  for (const Losses& layer : passed.losses)
                    for (const Loss& l : layer) loss = add(loss, scale(l.value, l.coefficient));
                  return loss;
                },
                1e-6) < 1e-6);
    }
}

TEST_CASE("strategies: a run resumed in the middle of its schedule continues to the same bits") {
  for (const Strategy& s : kStrategies) {
    CAPTURE(std::string(s.name));
    const Folder folder(s.router);
    const Quiet quiet((folder.path / "out").string());
    const std::vector<std::string> keep{"train.keep=9"};
    CHECK(train(folder.run("whole", keep)) == 0);
    const auto log = log_of(folder.path / "whole");
    int64_t before = 0, after = 0;
    for (size_t i = 0; i < 12; ++i) (i < 8 ? before : after) += log[i]["competing"].get<int64_t>();
    CHECK((before > 0 && after > 0) == s.competes);
    fs::copy(folder.path / "whole", folder.path / "again", fs::copy_options::recursive);
    for (const int step : {10, 12}) fs::remove_all(folder.checkpoint("again", step));
    TrainArguments again = folder.run("again", keep);
    again.resume = true;
    CHECK(train(again) == 0);
    const auto continued = log_of(folder.path / "again");
    REQUIRE(continued.size() == 12);
    for (size_t i = 0; i < 12; ++i)
      for (const char* key : {"loss", "grad_norm", "load", "competing"}) CHECK(continued[i][key] == log[i][key]);
    CHECK(folder.bytes(fs::path(folder.checkpoint("whole", 12)) / "model.safetensors") ==
          folder.bytes(fs::path(folder.checkpoint("again", 12)) / "model.safetensors"));
  }
}

TEST_CASE("strategies: a training that is extended keeps its schedule and draws the new steps") {
  const Folder folder("[moe.router]\nstrategy = 'competition'\nrate = 0.6\nwarm_up = 0.25\nmax_layers = 2");
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  TrainArguments longer = folder.run("run", {"train.steps=30"});
  longer.resume = true;
  CHECK(train(longer) == 0);
  const auto log = log_of(folder.path / "run");
  REQUIRE(log.size() == 30);
  int64_t later = 0;
  for (size_t i = 0; i < 30; ++i) {
    const auto competing = log[i]["competing"].get<int64_t>();
    if (i < 3) CHECK(competing == 0);  // the warm-up of 12 steps
    CHECK(competing <= 2);
    if (i >= 12) later += competing;
    CHECK(log[i].contains("loss.router") == (competing > 0));
    CHECK(log[i]["routing"].contains("agreement") == (competing > 0));
  }
  CHECK(later > 5);
}

TEST_CASE("strategies: micro-batches of whole groups add up to the whole batch, thresholds too") {
  for (const char* router : {"[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.3",
                             "[moe.router]\nstrategy = 'unified'\ngroup = 2\nk = 1.7\nbalance_coefficient = 0.1",
                             "[moe.router]\nstrategy = 'competition'\ngroup = 1\nrate = 1\nwarm_up = 0",
                             "[moe.router]\nscore = 'l2_norm'\nselection = 'global'\nweight = 'over_all'\ngroup = 2\n"
                             "k = 1.5\nrate = 1\nwarm_up = 0\nscope = 'sequence'"}) {
    Tiny whole({"precision=f64"}, router), parts({"precision=f64", "train.micro_batch=2"}, router);
    for (int64_t i = 0; i < 3; ++i) {
      const StepReport a = whole.trainer.step(i, i), b = parts.trainer.step(i, i);
      CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-12));
      CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(1e-11));
      CHECK(a.load == b.load);
    }
    if (!whole.model.blocks()[1].experts->router().thresholds()) continue;
    const auto threshold = [](Tiny& t) { return t.model.blocks()[1].experts->router().thresholds()->value; };
    REQUIRE(threshold(whole).size() == threshold(parts).size());
    for (int64_t i = 0; i < threshold(whole).size(); ++i)
      CHECK(threshold(whole).data<double>()[i] == doctest::Approx(threshold(parts).data<double>()[i]).epsilon(1e-12));
  }
}

TEST_CASE("strategies: what a competing step takes is measured before") {
  Tiny tiny({}, "[moe.router]\nstrategy = 'competition'\nrate = 1\nwarm_up = 0");
  const size_t measured = tiny.trainer.measure(4);
  tiny.losses(3);
  CHECK(tiny.trainer.arena().extent() == measured);
  // Two of three layers may compete at once; the first never does.
  const char* const capped =
      "[moe.router]\nstrategy = 'competition'\nrate = 0.9\nwarm_up = 0\nmax_layers = 2\n"
      "[[moe.layer]]\nindex = 0\nrate = 0";
  Tiny three({"moe.every=1", "model.layers=3"}, capped);
  const size_t worst = three.trainer.measure(4);
  three.losses(4);
  CHECK(three.trainer.arena().extent() == worst);
}
