#include "apps/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/copy.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

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

TEST_CASE("trainer: a balance loss of global scope sees the step's earlier micro-batches") {
  Tiny global({"precision=f64", "moe.router.balance_scope=global", "train.micro_batch=1"});
  Tiny batch({"precision=f64", "train.micro_batch=1"});
  const double a = global.trainer.step(0, 0).losses.at("balance"), b = batch.trainer.step(0, 0).losses.at("balance");
  CHECK(a != b);
  CHECK(a == doctest::Approx(b).epsilon(0.3));
  Tiny whole({"precision=f64", "moe.router.balance_scope=global"}), same({"precision=f64"});
  CHECK(whole.trainer.step(0, 0).losses.at("balance") ==
        doctest::Approx(same.trainer.step(0, 0).losses.at("balance")).epsilon(1e-12));
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

DEVICE_CASE("trainer: a loss that is not finite names step, layer and tensor, and changes nothing") {
  Tiny tiny({text("device=", device_of_case().kind == Device::cpu ? "cpu" : "cuda")});
  tiny.losses(1);
  const auto poison = [&](const std::string& path, double value) {
    Tensor before;
    each_parameter(tiny.model, [&](const std::string& name, Parameter& p) {
      if (name != path) return;
      before = clone(p.value);
      fill(p.value, value);
    });
    return before;
  };
  const auto restore = [&](const std::string& path, const Tensor& before) {
    each_parameter(tiny.model, [&](const std::string& name, Parameter& p) {
      if (name == path) copy(p.value, before);
    });
  };
  std::vector<Tensor> all, moments, states;
  for (Parameter* p : tiny.optimizer.parameters()) all.push_back(clone(p->master));
  tiny.optimizer.each_moment([&](const Optimizer::Moment& m) { moments.push_back(clone(m.tensor)); });
  each_state(tiny.model, [&](const std::string&, Tensor& t) { states.push_back(clone(t)); });
  for (const auto& [path, value, message] :
       {std::tuple{"blocks.1.attention.out.weight", double(INFINITY),
                   "step 2: the loss is not finite; first found in the parameter blocks.1.attention.out.weight"},
        {"head", double(INFINITY), "step 2: the loss is not finite; first found in the parameter head;"},
        {"blocks.0.attention.out.weight", std::nan(""),
         "step 2: the loss is not finite; first found in the parameter blocks.0.attention.out.weight"},
        {"blocks.0.feed_forward.gate_up", 1e25,
         "step 2: the loss is not finite; first found in the output of blocks.0.feed_forward"}}) {
    const Tensor before = poison(path, value);
    CHECK_THROWS_WITH_AS(tiny.trainer.step(1, 1), doctest::Contains(message), Error);
    restore(path, before);
  }
  for (size_t i = 0; i < all.size(); ++i) CHECK(identical(all[i], tiny.optimizer.parameters()[i]->master));
  size_t moment = 0, state = 0;
  tiny.optimizer.each_moment([&](const Optimizer::Moment& m) { CHECK(identical(m.tensor, moments[moment++])); });
  each_state(tiny.model, [&](const std::string&, Tensor& t) { CHECK(identical(t, states[state++])); });
  CHECK(moment == 2 * all.size());
  CHECK(state > 0);
  CHECK(std::isfinite(tiny.trainer.step(1, 1).loss));
}

DEVICE_CASE("trainer: what only a later micro-batch sees is found, and no update is made") {
  Tiny tiny({"train.micro_batch=1", text("device=", device_of_case().kind == Device::cpu ? "cpu" : "cuda")});
  tiny.losses(1);
  // A token that only the last micro-batch has.
  const auto has = [&](int64_t micro, int32_t id) {
    const Batch b = tiny.data.batch(1, {micro, 4, 0, 1});
    return std::ranges::count(b.token.data<const int32_t>(), id) > 0;
  };
  int32_t only = 0;
  while (only < 257 && (!has(3, only) || has(0, only) || has(1, only) || has(2, only))) ++only;
  REQUIRE(only < 257);
  Parameter& embedding = *tiny.optimizer.parameters().front();
  REQUIRE(embedding.name == "embedding");
  const Tensor changed = on_host(clone(embedding.value));
  changed.data<float>()[size_t(only * changed.shape(1))] = std::nanf("");
  copy(embedding.value, changed);
  const Tensor before = clone(tiny.optimizer.parameters().back()->master);
  const std::string message = "step 2: the loss is not finite; first found in the parameter embedding";
  CHECK_THROWS_WITH_AS(tiny.trainer.step(1, 1), doctest::Contains(message.c_str()), Error);
  CHECK(identical(tiny.optimizer.parameters().back()->master, before));
  CHECK(identical(embedding.value, changed));
}

GPU_CASE("trainer: nothing crosses between the batch and the log line") {
  for (const auto& [name, router] : {
           std::pair{"dropless token choice", "[moe.router]\nk = 2\nz_coefficient = 0.001\nbias_rate = 0.001"},
           {"its loss over the step", "[moe.router]\nbalance_scope = 'global'"},
           {"expert choice", "[moe.router]\nstrategy = 'expert_choice'\nscope = 'sequence'\nk = 1.5"},
           {"unified", "[moe.router]\nstrategy = 'unified'\nk = 1.5"},
           {"competition", "[moe.router]\nstrategy = 'competition'\nrate = 0.5\nwarm_up = 0"},
       }) {
    CAPTURE(std::string(name));
    Tiny tiny({"device=cuda", "train.micro_batch=2"}, router);
    tiny.losses(1);  // the optimizer's table
    int64_t competing = 0;
    for (int64_t step = 1; step < 5; ++step) {
      const Crossings before = crossings();
      competing += tiny.trainer.step(step, step).competing;
      const Crossings after = crossings();
      CHECK(after.to_device - before.to_device ==
            2 * 4);  // tokens, positions, offsets and targets of two micro-batches
      CHECK(after.to_host - before.to_host == 1);
    }
    CHECK((competing > 0) == (std::string(name) == "competition"));
  }
}

GPU_CASE("trainer: what measure says is what a step on a GPU takes, and a report has the CPU's figures") {
  Tiny there({"device=cuda"}), here;
  const size_t expected = there.trainer.measure(4);
  for (int64_t i = 0; i < 3; ++i) {
    const StepReport a = there.trainer.step(i, i), b = here.trainer.step(i, i);
    CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(1e-4));
    CHECK(a.load == b.load);
    CHECK(a.dropped == b.dropped);
    REQUIRE(a.routing.size() == b.routing.size());
    for (const auto& [key, value] : b.routing) CHECK(a.routing.at(key) == doctest::Approx(value).epsilon(1e-4));
    for (const auto& [key, value] : b.losses) CHECK(a.losses.at(key) == doctest::Approx(value).epsilon(1e-4));
  }
  CHECK(there.trainer.arena().extent() == expected);
}
