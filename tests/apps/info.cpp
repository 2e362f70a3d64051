#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("info: of a configuration and of a checkpoint") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(info((folder.path / "config.toml").string(), {}) == 0);
  CHECK(quiet.text().find("blocks.1.feed_forward.experts.gate_up") != std::string::npos);
  CHECK(quiet.text().find("step ") == std::string::npos);
  CHECK(train(folder.run("run")) == 0);
  CHECK(info((folder.path / "run").string(), {}) == 0);
  CHECK(quiet.text().find("step 12 of 12, tokenizer bytes") != std::string::npos);
  CHECK(quiet.text().find("blocks.1.feed_forward.router.bias") != std::string::npos);
  CHECK_THROWS_AS(info((folder.path / "nothing.toml").string(), {}), UserError);
}
