#include "distributed/module.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("module: where there is none it says where it looked") {
  const Module none = open_module("agon_no.so", "agon_no", {"/no/folder", "/none/here"});
  CHECK(!none.exists);
  CHECK(!none.function);
  CHECK(none.path == "agon_no.so is in none of /no/folder, /none/here");
}

TEST_CASE("module: one that cannot be loaded, or is something else, says why") {
  const TemporaryFolder folder;
  put(folder / "agon_broken.so", "not a library");
  const Module broken = open_module("agon_broken.so", "agon_broken", {"/no/folder", folder.path()});
  CHECK(broken.exists);
  CHECK(!broken.function);
  CHECK(broken.path == folder / "agon_broken.so");
  CHECK(broken.why.find("agon_broken.so") != std::string::npos);
  const Module other = open_module("libm.so.6", "agon_broken", {"/lib/x86_64-linux-gnu", "/lib64", "/usr/lib"});
  if (other.exists) CHECK(other.why.find("agon_broken") != std::string::npos);
}

TEST_CASE("module: the folders are those of the build and those of an installation") {
  const std::vector<std::string> folders = module_folders();
  const auto has = [&](const std::string& folder) { return std::ranges::find(folders, folder) != folders.end(); };
  CHECK(has(AGON_BINARY_DIR));
  CHECK(std::ranges::any_of(folders, [](const std::string& f) {
    return f.find("lib") != std::string::npos && f.substr(f.size() - 5) == "/agon";
  }));
}
