#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/signals.h"
#include "apps/training_state.h"
#include "apps/verbs.h"

using namespace agon;
namespace fs = std::filesystem;

namespace {

const char* const kConfig = R"(
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
[moe.router]
k = 2
jitter = 0.01
bias_rate = 0.001
[train]
steps = 12
batch = 4
eval_every = 5
eval_tokens = 200
checkpoint_every = 4
[optimizer]
warm_up = 5
)";

/// What the program prints goes to a file while it lives.
class Quiet {
 public:
  explicit Quiet(std::string path) : path_(std::move(path)) {
    std::fflush(stdout);
    kept_ = dup(1);
    const int file = open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(file, 1);
    close(file);
  }
  ~Quiet() {
    std::fflush(stdout);
    dup2(kept_, 1);
    close(kept_);
  }
  std::string text() const {
    std::fflush(stdout);
    std::ifstream in(path_);
    return (std::ostringstream() << in.rdbuf()).str();
  }

 private:
  std::string path_;
  int kept_;
};

/// A folder of its own for a test's runs.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "agon-train-XXXXXX").string();
    path = mkdtemp(name.data());
    std::ofstream(path / "config.toml") << kConfig;
  }
  ~Folder() { fs::remove_all(path); }
  TrainArguments run(const std::string& name, std::vector<std::string> overrides = {}) const {
    TrainArguments a;
    a.config = (path / "config.toml").string();
    overrides.push_back("train.out=" + (path / name).string());
    a.overrides = std::move(overrides);
    return a;
  }
  std::string checkpoint(const std::string& name, int step) const { return (path / name / "checkpoints" / ("step-" + std::to_string(step))).string(); }
  std::string bytes(const fs::path& file) const {
    std::ifstream in(file, std::ios::binary);
    return (std::ostringstream() << in.rdbuf()).str();
  }
  std::vector<nlohmann::json> log(const std::string& name) const {
    std::ifstream in(path / name / "log.jsonl");
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
};

}  // namespace

TEST_CASE("train: writes what the interface names") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  CHECK(quiet.text().find("time per part") != std::string::npos);
  const auto log = folder.log("run");
  REQUIRE(log.size() == 12);
  for (size_t i = 0; i < log.size(); ++i) CHECK(log[i]["step"] == i + 1);
  CHECK(log[4].contains("val_bpb"));
  CHECK(log[11].contains("val_loss"));
  CHECK(!log[3].contains("val_loss"));
  CHECK(log[0]["load"].size() == 2);
  for (const char* file : {"config.toml", "latest", "best"}) CHECK(fs::exists(folder.path / "run" / file));
  CHECK(fs::exists(folder.checkpoint("run", 12)));
}

TEST_CASE("train: resumed from any checkpoint, the same bits as never stopped") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("whole", {"train.keep=9"})) == 0);
  const auto log = folder.log("whole");
  for (const int from : {4, 5, 8, 0}) {  // 5: saved because the evaluation was the best; 0: killed before the first
    const std::string name = "from" + std::to_string(from);
    fs::copy(folder.path / "whole", folder.path / name, fs::copy_options::recursive);
    for (const int step : {4, 5, 8, 10, 12})
      if (step > from) fs::remove_all(folder.checkpoint(name, step));
    TrainArguments again = folder.run(name, {"train.keep=9"});
    again.resume = true;
    CHECK(train(again) == 0);
    CHECK(folder.log(name).size() == 12);
    for (size_t i = 0; i < 12; ++i)
      for (const char* key : {"loss", "grad_norm", "lr", "load"}) CHECK(folder.log(name)[i][key] == log[i][key]);
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
      CHECK(folder.bytes(fs::path(folder.checkpoint("whole", 12)) / file) == folder.bytes(fs::path(folder.checkpoint(name, 12)) / file));
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
  CHECK(folder.log("run").size() == 6);
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
  CHECK(double(folder.log("second")[0]["loss"]) < double(folder.log("first")[0]["loss"]) - 0.01);
  second = folder.run("third", {"model.width=24"});
  second.init_from = (folder.path / "first").string();
  CHECK_THROWS_AS(train(second), UserError);

  TrainArguments heart = folder.run("heart", {"optimizer.rate=0.02", "train.steps=40", "model.dropout=0"});
  heart.overfit_one_batch = true;
  CHECK(train(heart) == 0);
  CHECK(double(folder.log("heart")[39]["loss"]) < 2);

  TrainArguments dry = folder.run("dry");
  dry.dry_run = true;
  CHECK(train(dry) == 0);
  CHECK(!fs::exists(folder.path / "dry"));
  CHECK(quiet.text().find("largest micro-batch that fits") != std::string::npos);
}

TEST_CASE("eval, generate and info read what train wrote") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  const std::string run = (folder.path / "run").string();
  CHECK(eval({run, "", {}}) == 0);
  CHECK(quiet.text().find("realised k     2.0000") != std::string::npos);
  const std::string loss = text(double(folder.log("run")[11]["val_loss"]));
  CHECK(quiet.text().find(loss.substr(0, 6)) != std::string::npos);
  std::ofstream(folder.path / "text") << "The quick brown fox jumps over the lazy dog.\n";
  CHECK(eval({run + "/best", (folder.path / "text").string(), {}}) == 0);
  CHECK(quiet.text().find("bytes          44") != std::string::npos);
  GenerateArguments generate;
  generate.checkpoint = run;
  generate.prompt = "The ";
  generate.sampling.tokens = 40;  // longer than the context of 16
  CHECK(generate_text(generate) == 0);
  CHECK(info(run, {}) == 0);
  CHECK(info((folder.path / "config.toml").string(), {}) == 0);
  CHECK(quiet.text().find("blocks.1.feed_forward.router.bias") != std::string::npos);
  CHECK_THROWS_AS(eval({(folder.path / "nowhere").string(), "", {}}), UserError);
  CHECK_THROWS_AS(eval({run, "", {"model.wdith=3"}}), UserError);
}

TEST_CASE("signals: noticed once, handlers put back") {
  const auto before = std::signal(SIGTERM, SIG_IGN);
  {
    const Signals signals;
    CHECK(Signals::stop() == 0);
    std::raise(SIGUSR1);
    CHECK(Signals::take_save());
    CHECK(!Signals::take_save());
    std::raise(SIGTERM);
    CHECK(Signals::stop() == SIGTERM);
  }
  CHECK((std::signal(SIGTERM, before) == SIG_IGN));
}
