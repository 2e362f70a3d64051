#include "apps/checkpoint.h"

#include <doctest/doctest.h>

#include "tests/support/gradient.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

const char* const kState = R"({"loss":0.1,"seen":18446744073709551615,"draws":[1,2]})";

struct Run {
  TemporaryFolder folder;
  std::vector<NamedTensor> model{{"embed.weight", random({4, 3}, 1, 1, DType::f32)},
                                 {"block.0.router.bias", random({4}, 2)}};
  std::vector<NamedTensor> optimizer{{"embed.weight.first", random({4, 3}, 3, 1, DType::f32)}};

  std::string path() const { return folder / "run"; }
  std::string file(int step, const std::string& name) const {
    return path() + "/checkpoints/step-" + std::to_string(step) + '/' + name;
  }
  void save(int step, bool best = false) const {
    save_checkpoint(path(), step, model, optimizer, kState, "seed = 1\n", {3, best});
  }
};

}  // namespace

TEST_CASE("checkpoint: what is saved is loaded") {
  const Run run;
  run.save(7);
  const Checkpoint c = open_checkpoint(run.path());
  CHECK(c.step() == 7);
  CHECK(c.state() == kState);
  CHECK(c.config() == "seed = 1\n");
  CHECK(c.path() == run.path() + "/checkpoints/step-7");
  const Tensor w({4, 3}, DType::f32), b({4}, DType::f64), m({4, 3}, DType::f32);
  c.load_model(std::vector<NamedTensor>{{"embed.weight", w}, {"block.0.router.bias", b}});
  c.load_optimizer("embed.weight.first", m);
  CHECK(identical(w, run.model[0].tensor));
  CHECK(identical(b, run.model[1].tensor));
  CHECK(identical(m, run.optimizer[0].tensor));
}

TEST_CASE("checkpoint: a model that differs is refused by name and nothing is filled") {
  const Run run;
  run.save(1);
  const Checkpoint c = open_checkpoint(run.path());
  const Tensor w = Tensor({4, 3}, DType::f32).zero();
  const auto refusal = [&](std::vector<NamedTensor> others) {
    others.insert(others.begin(), {"embed.weight", w});
    return user_error([&] { c.load_model(others); });
  };
  CHECK(contains(refusal({{"block.0.router.bias", Tensor({5}, DType::f64)}}),
                 "'block.0.router.bias' has shape [4], expected [5]"));
  CHECK(contains(refusal({{"block.0.router.bias", Tensor({4}, DType::f32)}}), "is f64, expected f32"));
  CHECK(contains(refusal({}), "found tensor 'block.0.router.bias' of f64 [4]"));
  CHECK(contains(refusal({{"head", Tensor({2}, DType::f32)}}), "model.safetensors: has no tensor 'head'"));
  for (float x : w.data<float>()) CHECK(x == 0);
}

TEST_CASE("checkpoint: the ways to name one") {
  const Run run;
  run.save(1, true);
  run.save(2);
  CHECK(open_checkpoint(run.path()).step() == 2);
  CHECK(open_checkpoint(run.path() + "/latest").step() == 2);
  CHECK(open_checkpoint(run.path() + "/best").step() == 1);
  CHECK(open_checkpoint(run.path() + "/checkpoints/step-1").step() == 1);
  CHECK(open_checkpoint(run.path() + "/checkpoints/step-1/").step() == 1);
  std::filesystem::copy(run.path() + "/checkpoints/step-2", run.folder / "copy");
  CHECK(open_checkpoint(run.folder / "copy").step() == 2);
}

TEST_CASE("checkpoint: what is none") {
  const Run run;
  CHECK(contains(user_error([&] { open_checkpoint(run.path()); }), "run: lstat failed: No such file or directory"));
  std::filesystem::create_directories(run.path());
  CHECK(contains(user_error([&] { open_checkpoint(run.path()); }), "not a checkpoint: found no manifest.json"));
  std::filesystem::create_directories(run.path() + "/checkpoints");
  CHECK(contains(user_error([&] { open_checkpoint(run.path()); }), "has no valid checkpoint"));
  for (const char* text :
       {"", "step-1", "checkpoints/../../x", "checkpoints/.step-1.tmp", "weights/step-1", "checkpoints/step-01"}) {
    put(run.path() + "/best", text);
    CHECK(contains(user_error([&] { open_checkpoint(run.path() + "/best"); }), "best: not a checkpoint"));
  }
  put(run.path() + "/best", "checkpoints/step-9\n");
  CHECK(contains(user_error([&] { open_checkpoint(run.path() + "/best"); }), "step-9: not a checkpoint"));
  std::filesystem::create_directories(run.folder / "foreign");
  put(run.folder / "foreign/manifest.json", R"({"format": "other", "files": []})");
  CHECK(contains(user_error([&] { open_checkpoint(run.folder / "foreign"); }),
                 "manifest.json: not the manifest of an agon checkpoint"));
}

TEST_CASE("checkpoint: damage anywhere is found, named, and the one before it used") {
  for (const char* name : {"manifest.json", "model.safetensors", "optimizer.safetensors"}) {
    Run run;
    run.save(1);
    run.save(2);
    const std::string path = run.file(2, name), whole = contents_of(path);
    const auto damaged = [&](const std::string& contents) {
      put(path, contents);
      CHECK(contains(user_error([&] { open_checkpoint(run.path() + "/latest"); }), name));
      std::vector<std::string> skipped;
      CHECK(open_checkpoint(run.path(), &skipped).step() == 1);
      REQUIRE(skipped.size() == 1);
      CHECK(contains(skipped[0], path));
    };
    for (size_t at = 0; at < whole.size(); at += at < 24 ? 1 : 29) {
      CAPTURE(at);
      std::string flipped = whole;
      flipped[at] = char(flipped[at] ^ (1 << (at % 8)));
      damaged(flipped);
    }
    for (size_t n = 0; n < whole.size(); n += 61) damaged(whole.substr(0, n));
    damaged(whole + '\n');
    std::filesystem::remove(path);
    CHECK(open_checkpoint(run.path()).step() == 1);
    put(path, whole);
    CHECK(open_checkpoint(run.path()).step() == 2);
  }
}

TEST_CASE("checkpoint: shards of another place are found") {
  const Run run, other;
  run.save(1);
  run.save(2);
  fill(other.model[0].tensor, 1);
  other.save(2);
  std::filesystem::rename(run.file(2, "model.safetensors"), run.file(2, "x"));
  std::filesystem::rename(run.file(2, "optimizer.safetensors"), run.file(2, "model.safetensors"));
  std::filesystem::rename(run.file(2, "x"), run.file(2, "optimizer.safetensors"));
  CHECK(find_latest_valid(run.path()).checkpoint->step() == 1);
  run.save(2);
  std::filesystem::copy(other.file(2, "model.safetensors"), run.file(2, "model.safetensors"),
                        std::filesystem::copy_options::overwrite_existing);
  CHECK(contains(find_latest_valid(run.path()).skipped.at(0), "model.safetensors: damaged: found checksum"));
  run.save(3);
  std::filesystem::rename(run.path() + "/checkpoints/step-3", run.path() + "/checkpoints/step-4");
  const FoundCheckpoint found = find_latest_valid(run.path());
  CHECK(contains(found.skipped.at(0), "step-4: found the checkpoint of step 3"));
}

TEST_CASE("checkpoint: one without permission is not passed over") {
  struct NoReading : FileSystem {
    int open(const char* path, int flags, mode_t mode) override {
      if (std::string(path).find("step-2/model") != std::string::npos) return errno = EACCES, -1;
      return FileSystem::open(path, flags, mode);
    }
  } files;
  const Run run;
  run.save(1);
  run.save(2);
  const std::string message = error([&] { find_latest_valid(run.path(), files); });
  CHECK(contains(message, "step-2/model.safetensors: open failed: Permission denied"));
  CHECK(contains(message, "step-2 away to go on from an older one"));
}

TEST_CASE("checkpoint: saving while another has it open") {
  const Run run;
  run.save(1);
  const Checkpoint c = open_checkpoint(run.path());
  for (int step : {2, 3, 4, 5}) run.save(step);
  CHECK_FALSE(std::filesystem::exists(c.path()));
  CHECK(identical(c.model().load("embed.weight"), run.model[0].tensor));
}
