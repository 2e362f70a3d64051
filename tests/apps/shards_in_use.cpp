// What one rank does with a checkpoint that many have saved: all it does with one of its own.

#include <doctest/doctest.h>

#include "apps/calibration.h"
#include "apps/checkpoint.h"
#include "core/copy.h"
#include "distributed/communicator.h"
#include "tests/apps/run_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Saves the newest checkpoint of a run again, by so many ranks that each have a range of every tensor.
std::string save_again(const std::string& run, int ranks) {
  const Checkpoint whole = open_checkpoint(run);
  run_on_threads(ranks, [&](Communicator& comm) {
    const auto part_of_all = [&](const StoredTensors& stored) {
      std::vector<TensorPart> parts;
      for (const TensorEntry& e : stored.tensors()) {
        const int64_t n = e.shape.size(), first = n * comm.rank() / ranks;
        parts.push_back({e.name, Tensor({n * (comm.rank() + 1) / ranks - first}, e.dtype), first, e.shape});
      }
      stored.load(parts);
      return parts;
    };
    save_checkpoint(run, whole.step(), part_of_all(whole.model()), part_of_all(whole.optimizer()), whole.state(),
                    whole.config(), {}, comm);
  });
  return whole.path();
}

}  // namespace

TEST_CASE("shards in use: one rank continues what many have saved, with the same bits") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("whole", {"train.keep=9"})) == 0);
  fs::copy(folder.path / "whole", folder.path / "part", fs::copy_options::recursive);
  for (const int step : {10, 12}) fs::remove_all(folder.checkpoint("part", step));
  const std::string saved = save_again((folder.path / "part").string(), 3);
  CHECK(saved == folder.checkpoint("part", 8));
  CHECK(fs::exists(saved + "/model-00002-of-00003.safetensors"));
  CHECK_FALSE(fs::exists(saved + "/model.safetensors"));
  TrainArguments again = folder.run("part", {"train.keep=9"});
  again.resume = true;
  CHECK(train(again) == 0);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    CHECK(folder.bytes(fs::path(folder.checkpoint("whole", 12)) / file) ==
          folder.bytes(fs::path(folder.checkpoint("part", 12)) / file));
}

TEST_CASE("shards in use: looked at, evaluated, sampled and begun from") {
  const Folder folder;
  const std::string run = (folder.path / "run").string(), out = (folder.path / "out").string();
  {
    const Quiet quiet(out);
    CHECK(train(folder.run("run")) == 0);
  }
  const auto all_of_it = [&](const std::string& name) {
    const Quiet quiet(out);
    CHECK(info(run, {}) == 0);
    CHECK(eval({run, "", {}}) == 0);
    GenerateArguments sample;
    sample.checkpoint = run;
    sample.prompt = "The ";
    sample.sampling.tokens = 10;
    CHECK(generate_text(sample) == 0);
    TrainArguments begun = folder.run(name, {"train.steps=2", "log.format=none"});
    begun.init_from = run;
    const std::string shown = quiet.text();
    CHECK(train(begun) == 0);
    return shown;
  };
  const std::string before = all_of_it("begun from one");
  const std::string weights = weights_of(folder.checkpoint("run", 12));
  save_again(run, 4);
  CHECK(all_of_it("begun from four") == before);
  CHECK(folder.bytes(fs::path(folder.checkpoint("begun from one", 2)) / "model.safetensors") ==
        folder.bytes(fs::path(folder.checkpoint("begun from four", 2)) / "model.safetensors"));
  // Other shards are other weights to a calibration, the same ones are the same.
  const std::string sharded = weights_of(folder.checkpoint("run", 12));
  CHECK(sharded.size() == 16);
  CHECK(sharded != weights);
  save_again(run, 4);
  CHECK(weights_of(folder.checkpoint("run", 12)) == sharded);
  save_again((folder.path / "begun from one").string(), 4);
  CHECK(weights_of(folder.checkpoint("begun from one", 2)) != sharded);
}
