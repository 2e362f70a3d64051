// Whole runs with files on many ranks.
#include <doctest/doctest.h>
#include <signal.h>

#include "tests/apps/run_folder.h"
#include "tests/apps/run_log.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The exit code, which must be every rank's.
int train_on(int ranks, const TrainArguments& arguments) {
  std::vector<int> codes(static_cast<size_t>(ranks));
  run_on_threads(ranks, [&](Communicator& all) { codes[size_t(all.rank())] = train(arguments, all); });
  for (const int code : codes) CHECK(code == codes[0]);
  return codes[0];
}

void check_same(const std::vector<nlohmann::json>& many, const std::vector<nlohmann::json>& one) {
  REQUIRE(many.size() == one.size());
  for (size_t i = 0; i < one.size(); ++i) {
    for (const char* key : {"loss", "grad_norm", "lr", "val_loss", "val_bpb", "loss.balance"}) {
      CAPTURE(std::string(key));
      REQUIRE(many[i].contains(key) == one[i].contains(key));
      if (one[i].contains(key))
        CHECK(many[i][key].get<double>() == doctest::Approx(one[i][key].get<double>()).epsilon(1e-9));
    }
    CHECK(many[i]["load"] == one[i]["load"]);
  }
}

const std::vector<std::string> kKeys{
    "precision=f64",        "moe.router.group=1",     "moe.router.balance_coefficient=0.01",
    "train.sample_every=6", "train.sample_tokens=20", "train.keep=9"};

std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.begin(), kKeys.begin(), kKeys.end());
  return more;
}

/// "--- sample after step 6 ... ---": what was sampled.
std::string samples_in(const std::string& printed) {
  std::string all;
  for (size_t at = 0; (at = printed.find("--- sample after", at)) != std::string::npos;) {
    const size_t end = printed.find("\n---\n", at);
    all += printed.substr(at, end - at);
    at = end;
  }
  return all;
}

int times(const std::string& piece, const std::string& text) {
  int n = 0;
  for (size_t at = 0; (at = text.find(piece, at)) != std::string::npos; ++at) ++n;
  return n;
}

}  // namespace

TEST_CASE("ranks: a run on four ranks logs, evaluates and samples as on one, and says what communication took") {
  const Folder folder;
  std::string one, many;
  {
    const Quiet quiet((folder.path / "out").string());
    CHECK(train(folder.run("one", with({}))) == 0);
    one = quiet.text();
  }
  {
    const Quiet quiet((folder.path / "out").string());
    CHECK(train_on(4, folder.run("many", with({"parallel.expert=2", "parallel.shard_optimizer=true"}))) == 0);
    many = quiet.text();
  }
  check_same(log_of(folder.path / "many"), log_of(folder.path / "one"));
  for (const auto& line : log_of(folder.path / "many")) {
    CHECK(line["comm_share"] > 0);
    CHECK(line["comm_bytes"] > 0);
  }
  CHECK(!log_of(folder.path / "one")[0].contains("comm_share"));
  CHECK(samples_in(one).size() > 80);
  CHECK(samples_in(many) == samples_in(one));
  for (const char* line : {"step 12/12 ", "memory: about", "validation: ", "time per part", "checkpoint: "}) {
    CAPTURE(std::string(line));
    CHECK(times(line, one) == 1);
    CHECK(times(line, many) == 1);  // nobody speaks but the first
  }
}

TEST_CASE("ranks: a run goes on on any number of ranks in any layout, sharded or not") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("whole", with({}))) == 0);
  struct Layout {
    int ranks;
    const char *expert, *shard;
  };
  const Layout layouts[] = {{4, "4", "true"}, {2, "1", "true"}, {4, "2", "false"}, {1, "1", "true"}, {2, "2", "true"}};
  for (int64_t steps = 0; const Layout& layout : layouts) {
    steps = std::min<int64_t>(12, steps + 3);
    TrainArguments arguments =
        folder.run("moved", with({text("train.steps=", steps), text("parallel.expert=", layout.expert),
                                  text("parallel.shard_optimizer=", layout.shard), "optimizer.schedule=constant"}));
    arguments.resume = true;
    CHECK(train_on(layout.ranks, arguments) == 0);
  }
  CHECK(train(folder.run("straight", with({"optimizer.schedule=constant"}))) == 0);
  auto moved = log_of(folder.path / "moved");
  const auto straight = log_of(folder.path / "straight");
  REQUIRE(moved.size() == 12);
  for (size_t i = 0; i < 12; ++i) {
    CHECK(moved[i]["loss"].get<double>() == doctest::Approx(straight[i]["loss"].get<double>()).epsilon(1e-9));
    CHECK(moved[i]["load"] == straight[i]["load"]);
  }
}

TEST_CASE("ranks: resumed in the same layout, the same bits as never stopped") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  const std::vector<std::string> keys{"parallel.expert=2", "parallel.shard_optimizer=true", "train.keep=9"};
  CHECK(train_on(4, folder.run("whole", keys)) == 0);
  fs::copy(folder.path / "whole", folder.path / "again", fs::copy_options::recursive);
  for (const int step : {8, 10, 12}) fs::remove_all(folder.checkpoint("again", step));
  TrainArguments again = folder.run("again", keys);
  again.resume = true;
  CHECK(train_on(4, again) == 0);
  const auto a = log_of(folder.path / "again"), b = log_of(folder.path / "whole");
  REQUIRE(a.size() == 12);
  for (size_t i = 0; i < 12; ++i)
    for (const char* key : {"loss", "grad_norm", "load"}) CHECK(a[i][key] == b[i][key]);
}

TEST_CASE("ranks: asked by a signal or a file, all save after the same step") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  std::atomic<bool> over = false;
  std::jthread asker([&] {
    const fs::path log = folder.path / "run" / "log.jsonl";
    while (!over && (!fs::exists(log) || fs::file_size(log) == 0)) std::this_thread::yield();
    if (!over) kill(getpid(), SIGTERM);
  });
  const int code = train_on(4, folder.run("run", with({"train.steps=100000", "train.checkpoint_every=0",
                                                       "train.eval_every=0", "parallel.expert=2"})));
  over = true;
  CHECK(code == 128 + SIGTERM);
  CHECK(quiet.text().find("stopped by a signal after step ") != std::string::npos);
  const auto log = log_of(folder.path / "run");
  const int step = log.back()["step"];
  CHECK(fs::exists(folder.checkpoint("run", step)));
  std::ofstream(folder.path / "run" / "checkpoint-now");
  TrainArguments again = folder.run("run", with({text("train.steps=", step + 3), "train.checkpoint_every=0",
                                                 "train.eval_every=0", "parallel.expert=4"}));
  again.resume = true;
  CHECK(train_on(4, again) == 0);
  CHECK(fs::exists(folder.checkpoint("run", step + 1)));
  CHECK(!fs::exists(folder.checkpoint("run", step + 2)));
}

TEST_CASE("ranks: other weights to start from, one batch to learn by heart") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("first")) == 0);
  TrainArguments second = folder.run("second", {"parallel.expert=2"});
  second.init_from = (folder.path / "first").string();
  CHECK(train_on(4, second) == 0);
  CHECK(double(log_of(folder.path / "second")[0]["loss"]) < double(log_of(folder.path / "first")[0]["loss"]) - 0.01);
  TrainArguments dry = folder.run("dry");
  dry.dry_run = true;
  CHECK(train_on(2, dry) == 0);
  CHECK(!fs::exists(folder.path / "dry"));
}
