#include "apps/restarts.h"

#include <doctest/doctest.h>

#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;
using Words = std::vector<std::string>;

TEST_CASE("restarts: as many as allowed while checkpoints come") {
  Restarts restarts(2, "");
  std::string why;
  CHECK(restarts.again("checkpoints/step-5", why));
  CHECK(why == "restart 1 of 2, from checkpoints/step-5");
  CHECK(restarts.again("checkpoints/step-9", why));
  CHECK(why == "restart 2 of 2, from checkpoints/step-9");
  CHECK(!restarts.again("checkpoints/step-12", why));
  CHECK(why == "failed after 2 of 2 restarts");
}

TEST_CASE("restarts: none where none are allowed") {
  Restarts restarts(0, "");
  std::string why = "left from before";
  CHECK(!restarts.again("", why));
  CHECK(why == "");
}

TEST_CASE("restarts: not after two tries without a new checkpoint") {
  std::string why;
  Restarts none(9, "");
  CHECK(none.again("", why));
  CHECK(why == "restart 1 of 9, from the beginning");
  CHECK(!none.again("", why));
  CHECK(why == "not restarted: there is no checkpoint after 2 tries");

  Restarts stuck(9, "a");
  CHECK(stuck.again("b", why));
  CHECK(stuck.again("b", why));
  CHECK(!stuck.again("b", why));
  CHECK(why == "not restarted: the last checkpoint is still b after 2 tries");

  Restarts slow(9, "a");
  for (const char* checkpoint : {"a", "b", "b", "c", "c"}) CHECK(slow.again(checkpoint, why));
}

TEST_CASE("restarts: training continues with --resume, other verbs begin anew") {
  CHECK(continued({"train", "a.toml", "x=1"}) == Words{"train", "a.toml", "x=1", "--resume"});
  CHECK(continued({"train", "--resume", "a.toml"}) == Words{"train", "--resume", "a.toml"});
  CHECK(continued({"eval", "runs/a"}) == Words{"eval", "runs/a"});
  CHECK(continued({}).empty());
}

TEST_CASE("restarts: the configuration of a training is found among its words") {
  const TemporaryFolder folder;
  const std::string config = folder / "a.toml";
  put(config, "[train]\nout = \"here\"\n");
  const auto out = [](const Words& words) { return config_of(words) ? config_of(words)->train.out : "none"; };
  CHECK(out({"train", config}) == "here");
  CHECK(out({"train", "--init-from", "runs/b", config, "--resume", "train.out=there", "seed=7"}) == "there");
  CHECK(out({"eval", config}) == "none");
  CHECK(out({"train"}) == "none");
  CHECK(out({"train", "--help"}) == "none");
  CHECK(out({"train", folder / "missing.toml"}) == "none");
  CHECK(out({"train", config, "train.nonsense=1"}) == "none");
}

TEST_CASE("restarts: the last checkpoint is what RUN/latest names") {
  const TemporaryFolder folder;
  CHECK(last_checkpoint(folder.path()) == "");
  CHECK(last_checkpoint("") == "");
  put(folder / "latest", "checkpoints/step-7\n");
  CHECK(last_checkpoint(folder.path()) == "checkpoints/step-7");
}
