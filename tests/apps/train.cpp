#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"
#include "tests/apps/run_log.h"
#include "tests/apps/threshold_toy.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("train: writes what the interface names") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  CHECK(quiet.text().find("time per part") != std::string::npos);
  const auto log = log_of(folder.path / "run");
  REQUIRE(log.size() == 12);
  for (size_t i = 0; i < log.size(); ++i) CHECK(log[i]["step"] == i + 1);
  CHECK(log[4].contains("val_bpb"));
  CHECK(log[11].contains("val_loss"));
  CHECK(!log[3].contains("val_loss"));
  CHECK(log[11]["val_k"] == 2);
  CHECK(!log[3].contains("val_k"));
  CHECK(quiet.text().find(" (causal, context 16)\n") != std::string::npos);
  CHECK(log[0]["load"].size() == 2);
  for (const char* file : {"config.toml", "latest", "best"}) CHECK(fs::exists(folder.path / "run" / file));
  CHECK(fs::exists(folder.checkpoint("run", 12)));
}

TEST_CASE("train: resumed from any checkpoint, the same bits as never stopped") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("whole", {"train.keep=9"})) == 0);
  const auto log = log_of(folder.path / "whole");
  for (const int from : {4, 5, 8, 0}) {  // 5: saved because the evaluation was the best; 0: killed before the first
    const std::string name = "from" + std::to_string(from);
    fs::copy(folder.path / "whole", folder.path / name, fs::copy_options::recursive);
    for (const int step : {4, 5, 8, 10, 12})
      if (step > from) fs::remove_all(folder.checkpoint(name, step));
    TrainArguments again = folder.run(name, {"train.keep=9"});
    again.resume = true;
    CHECK(train(again) == 0);
    CHECK(log_of(folder.path / name).size() == 12);
    for (size_t i = 0; i < 12; ++i)
      for (const char* key : {"loss", "grad_norm", "lr", "load"})
        CHECK(log_of(folder.path / name)[i][key] == log[i][key]);
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
      CHECK(folder.bytes(fs::path(folder.checkpoint("whole", 12)) / file) ==
            folder.bytes(fs::path(folder.checkpoint(name, 12)) / file));
  }
}

TEST_CASE("train: what must not be overwritten or mixed is refused") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run", {"train.steps=4"})) == 0);
  const std::string model = folder.bytes(fs::path(folder.checkpoint("run", 4)) / "model.safetensors");
  CHECK_THROWS_AS(train(folder.run("run")), UserError);
  TrainArguments other = folder.run("run", {"model.width=24", "optimizer.rate=0.01"});
  other.resume = true;
  CHECK_THROWS_WITH_AS(train(other), doctest::Contains("model.width: 16 -> 24"), UserError);
  CHECK_THROWS_WITH_AS(train(other), doctest::Contains("optimizer.rate: 0.001 -> 0.01"), UserError);
  TrainArguments text = folder.run("run", {"data.builtin_bytes=50000"});
  text.resume = true;
  CHECK_THROWS_AS(train(text), UserError);
  CHECK(folder.bytes(fs::path(folder.checkpoint("run", 4)) / "model.safetensors") == model);
  TrainArguments longer = folder.run("run", {"train.steps=6", "threads=1"});
  longer.resume = true;
  CHECK(train(longer) == 0);
  CHECK(log_of(folder.path / "run").size() == 6);
  CHECK(train(longer) == 0);  // nothing left to do
  CHECK(quiet.text().find("has done its 6 steps already") != std::string::npos);
}

TEST_CASE("train: other weights to start from, one batch to learn by heart, costs without training") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("first")) == 0);
  TrainArguments second = folder.run("second");
  second.init_from = (folder.path / "first").string();
  CHECK(train(second) == 0);
  CHECK(double(log_of(folder.path / "second")[0]["loss"]) < double(log_of(folder.path / "first")[0]["loss"]) - 0.01);
  second = folder.run("third", {"model.width=24"});
  second.init_from = (folder.path / "first").string();
  CHECK_THROWS_AS(train(second), UserError);

  TrainArguments heart = folder.run("heart", {"optimizer.rate=0.02", "train.steps=40", "model.dropout=0"});
  heart.overfit_one_batch = true;
  CHECK(train(heart) == 0);
  CHECK(double(log_of(folder.path / "heart")[39]["loss"]) < 2);

  TrainArguments dry = folder.run("dry");
  dry.dry_run = true;
  CHECK(train(dry) == 0);
  CHECK(!fs::exists(folder.path / "dry"));
  CHECK(quiet.text().find("largest micro-batch that fits") != std::string::npos);
}

TEST_CASE("train: validation is causal and says what k it had, and other strategies start from trained weights") {
  const PoolToys toys;
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("choice", {"train.steps=4"})) == 0);
  std::ofstream(folder.path / "config.toml", std::ios::app) << "[[moe.layer]]\nindex = 1\nstrategy = \"toy_pool\"\n";
  TrainArguments pool = folder.run("pool");
  pool.init_from = (folder.path / "choice").string();
  CHECK(train(pool) == 0);
  const auto log = log_of(folder.path / "pool");
  CHECK(double(log[0]["loss"]) < double(log_of(folder.path / "choice")[0]["loss"]) - 0.01);
  const double k = log[11]["val_k"];
  CHECK(k == doctest::Approx(2).epsilon(0.1));
  CHECK(k != 2);
  char shown[64];
  std::snprintf(shown, sizeof shown, "context 16), realised k %.4f (conf", k);
  CHECK(quiet.text().find(shown) != std::string::npos);
  TrainArguments other = folder.run("pool", {"moe.layer.1.strategy=toy_columns"});
  other.resume = true;
  CHECK_THROWS_WITH_AS(train(other), doctest::Contains("moe.layer.1.strategy"), UserError);
  pool.init_from.clear();
  pool.resume = true;
  pool.overrides.push_back("train.steps=14");
  CHECK(train(pool) == 0);
}

TEST_CASE("train: a run whose checkpoints are all damaged is left as it is") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run", {"train.steps=4"})) == 0);
  for (const auto& entry : fs::directory_iterator(folder.path / "run" / "checkpoints")) {
    std::fstream file(entry.path() / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x7f');
  }
  TrainArguments again = folder.run("run", {"train.steps=4"});
  again.resume = true;
  CHECK_THROWS_WITH_AS(train(again), doctest::Contains("none of the run's checkpoints can be read"), UserError);
  CHECK(log_of(folder.path / "run").size() == 4);
  CHECK(fs::exists(folder.checkpoint("run", 4)));
}

TEST_CASE("train: a run killed before its first checkpoint goes on only as it was configured") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run", {"train.steps=4"})) == 0);
  fs::remove_all(folder.path / "run" / "checkpoints");
  TrainArguments other = folder.run("run", {"train.steps=4", "model.width=24"});
  other.resume = true;
  CHECK_THROWS_WITH_AS(train(other), doctest::Contains("model.width: 16 -> 24"), UserError);
}

TEST_CASE("train: routing groups have to fill a micro-batch, options without effect are refused") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("groups", {"train.steps=2", "moe.router.group=2"})) == 0);
  CHECK_THROWS_AS(train(folder.run("a", {"moe.router.group=3"})), UserError);
  CHECK_THROWS_AS(train(folder.run("b", {"moe.router.group=2", "train.micro_batch=1"})), UserError);
  CHECK_THROWS_WITH_AS(train(folder.run("c", {"parallel.expert=2"})),
                       doctest::Contains("do not divide a job of 1 rank"), UserError);
  for (const char* name : {"a", "b", "c"}) CHECK(!fs::exists(folder.path / name));
}

GPU_CASE("train: a checkpoint goes on on the other device, and back") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  const std::vector<std::string> keys{"precision=bf16", "train.eval_tokens=64", "train.eval_every=0"};
  const auto train_to = [&](const char* run, int steps, const char* device, bool resume) {
    auto overrides = keys;
    overrides.push_back(text("train.steps=", steps));
    overrides.push_back(text("device=", device));
    overrides.push_back("optimizer.schedule=constant");
    TrainArguments arguments = folder.run(run, overrides);
    arguments.resume = resume;
    CHECK(train(arguments) == 0);
  };
  train_to("here", 6, "cpu", false);
  train_to("moved", 2, "cpu", false);
  train_to("moved", 4, "cuda", true);
  CHECK(quiet.text().find("of the host: what cuda:0 was given to do") != std::string::npos);
  train_to("moved", 6, "cpu", true);
  const auto a = log_of(folder.path / "moved"), b = log_of(folder.path / "here");
  REQUIRE(a.size() == 6);
  for (size_t i = 0; i < 6; ++i) CHECK(double(a[i]["loss"]) == doctest::Approx(double(b[i]["loss"])).epsilon(5e-3));
  CHECK(a[3]["share_of_peak"] == 0);

  // What one device wrote, the other evaluates and shows.
  train_to("there", 2, "cuda:0", false);
  EvalArguments evaluated;
  evaluated.checkpoint = (folder.path / "there").string();
  CHECK(eval(evaluated) == 0);
  evaluated.overrides = {"device=cpu"};
  CHECK(eval(evaluated) == 0);
  CHECK(info((folder.path / "there").string(), {}) == 0);
}

TEST_CASE("train: devices there are not are refused before anything is written") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  for (const char* device : {"cuda:77", "gpu"}) {
    CHECK_THROWS_WITH_AS(train(folder.run("run", {text("device=", device)})), doctest::Contains("device"), UserError);
    CHECK(!fs::exists(folder.path / "run"));
  }
  CHECK_THROWS_WITH_AS(train(folder.run("run", {"device=cuda", "precision=f64"})),
                       doctest::Contains("f64 exists on the CPU only"), UserError);
}
