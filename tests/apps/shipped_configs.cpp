#include <algorithm>
#include <filesystem>

#include "apps/config_file.h"
#include "tests/support/message.h"

using namespace agon;

namespace {

std::vector<std::string> shipped() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(AGON_SOURCE_DIR "/configs")) {
    if (entry.path().extension() == ".toml") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

Config config(const std::string& name) { return load_config(AGON_SOURCE_DIR "/configs/" + name); }

}  // namespace

TEST_CASE("shipped configs: all load") {
  CHECK(shipped().size() >= 7);
  for (const std::string& path : shipped()) {
    INFO(path);
    CHECK_NOTHROW(load_config(path));
  }
}

TEST_CASE(
    "shipped configs: the dense character model is nanoGPT's CPU run, the sparse one its twin of equal active size") {
  const Config dense = config("char-dense.toml"), sparse = config("char-moe.toml");
  for (const Config& c : {dense, sparse}) {
    CHECK(c.model.layers == 4);
    CHECK(c.model.heads == 4);
    CHECK(c.model.width == 128);
    CHECK(c.model.sequence == 64);
    CHECK(c.model.dropout == 0);
    CHECK(c.model.tied);
    CHECK_FALSE(c.model.bias);
    CHECK(c.train.batch == 12);
    CHECK(c.train.steps == 2000);
    CHECK(c.optimizer.rate == 1e-3);
    CHECK(c.optimizer.final_rate == 1e-4);
    CHECK(c.optimizer.warm_up == 100);
    CHECK(c.optimizer.beta2 == 0.99);
    CHECK(c.optimizer.weight_decay == 0.1);
    CHECK(c.optimizer.clip == 1);
    CHECK(c.data.tokenizer == "chars");
    CHECK(c.data.valid_share == 0.1);
  }
  CHECK_FALSE(dense.moe.enabled);
  CHECK(dense.model.feed_forward_width() == 512);
  CHECK(sparse.moe.layer.experts == 8);
  CHECK(2 * sparse.moe.layer.expert_width == dense.model.feed_forward_width());
  CHECK(sparse.moe.layer.activation == dense.model.activation);
}

TEST_CASE("shipped configs: the quickstart needs no file") {
  const Config c = config("quickstart.toml");
  CHECK(c.data.train == "builtin:domains");
  CHECK(c.moe.layer.experts == 8);
}
