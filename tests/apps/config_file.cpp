#include "apps/config_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

namespace {

/// A folder of its own that goes away.
struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("agon-config-" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
    return (path / name).string();
  }
};

}  // namespace

TEST_CASE("config_file: a file with overrides") {
  const Folder folder;
  const std::string path = folder.write("a.toml", "[model]\nwidth = 64\n");
  const std::vector<std::string> overrides{"train.steps=5", "train.steps=6"};
  const Config c = load_config(path, overrides);
  CHECK(c.model.width == 64);
  CHECK(c.train.steps == 6);
  CHECK(c.origin.at("model.width") == path + ":2");
}

TEST_CASE("config_file: what cannot be read is named") {
  const Folder folder;
  check_contains(user_error([&] { load_config((folder.path / "missing.toml").string()); }), {"missing.toml"});
  check_contains(user_error([&] { load_config(folder.path.string()); }), {folder.path.c_str()});
  check_contains(user_error([&] { load_config(""); }), {});
  const std::string large = folder.write("large.bin", std::string(2 << 20, 'x'));
  check_contains(user_error([&] { load_config(large); }), {"large.bin"});
  const std::string closed = folder.write("closed.toml", "seed = 1");
  std::filesystem::permissions(closed, std::filesystem::perms::none);
  if (::access(closed.c_str(), R_OK) != 0) check_contains(user_error([&] { load_config(closed); }), {"closed.toml"});
}

TEST_CASE("config_file: an empty file is a dense model with every default") {
  const Config c = parse_config("", "a.toml");
  CHECK(c.origin.empty());
  CHECK_FALSE(c.moe.enabled);
}

TEST_CASE("config_file: contradictions are refused with the place of the value") {
  check_contains(user_error([] { parse_config("[model]\nheads = 3", "a.toml"); }),
                 {"model.heads (a.toml:2)", "3 heads"});
  check_contains(user_error([] { parse_config("", "a.toml", std::vector<std::string>{"model.heads=3"}); }),
                 {"model.heads (command line)"});
  check_contains(user_error([] { parse_config("[moe]\nexperts = 2\n[moe.router]\nk = 3", "a.toml"); }),
                 {"moe.router.k = 3", "k from a.toml:4", "3", "2"});
}
