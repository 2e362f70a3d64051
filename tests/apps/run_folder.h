#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/verbs.h"

namespace agon::testing {

namespace fs = std::filesystem;

inline constexpr const char* kRunConfig = R"(
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
[train]
steps = 12
batch = 4
eval_every = 5
eval_tokens = 200
checkpoint_every = 4
[optimizer]
warm_up = 5
)";

inline constexpr const char* kRunRouter = R"(
[moe.router]
k = 2
jitter = 0.01
bias_rate = 0.001
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
  explicit Folder(const std::string& router = kRunRouter) {
    std::string name = (fs::temp_directory_path() / "agon-train-XXXXXX").string();
    path = mkdtemp(name.data());
    std::ofstream(path / "config.toml") << kRunConfig << router;
  }
  ~Folder() { fs::remove_all(path); }
  TrainArguments run(const std::string& name, std::vector<std::string> overrides = {}) const {
    TrainArguments a;
    a.config = (path / "config.toml").string();
    overrides.push_back("train.out=" + (path / name).string());
    a.overrides = std::move(overrides);
    return a;
  }
  std::string checkpoint(const std::string& name, int step) const {
    return (path / name / "checkpoints" / ("step-" + std::to_string(step))).string();
  }
  std::string bytes(const fs::path& file) const {
    std::ifstream in(file, std::ios::binary);
    return (std::ostringstream() << in.rdbuf()).str();
  }
};

}  // namespace agon::testing
