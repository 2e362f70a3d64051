#include "apps/checkpoint_folder.h"

#include <doctest/doctest.h>

#include "tests/support/memory_files.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("checkpoint folder: names") {
  CHECK(parse_checkpoint_folder("step-120")->step == 120);
  CHECK(parse_checkpoint_folder("step-0")->kind == CheckpointFolder::whole);
  CHECK(parse_checkpoint_folder(".step-7.tmp")->kind == CheckpointFolder::temporary);
  CHECK(parse_checkpoint_folder(".step-7.old")->kind == CheckpointFolder::old);
  for (const char* name : {"", "step-", "step-01", "step--1", "step-1 ", "step-1.tmp", ".step-1", "astep-1", "step-1/x",
                           "step-999999999999999999999", "..", "7"})
    CHECK_FALSE(parse_checkpoint_folder(name).has_value());
  CHECK(parse_checkpoint_folder("step-999999999999999999")->path("r") == "r/checkpoints/step-999999999999999999");
}

TEST_CASE("checkpoint folder: the list is newest first") {
  MemoryFiles disk;
  CHECK(list_checkpoints("run", disk).empty());
  make_folder("run/checkpoints", disk);
  for (const char* name : {"step-9", "step-10", ".step-10.old", "else"})
    make_folder(std::string("run/checkpoints/") + name, disk);
  const auto found = list_checkpoints("run", disk);
  REQUIRE(found.size() == 3);
  CHECK(found[0].path("") == "/checkpoints/step-10");
  CHECK(found[1].path("") == "/checkpoints/.step-10.old");
  CHECK(found[2].step == 9);
}

TEST_CASE("checkpoint folder: an old one whose replacement never came gets its name back") {
  MemoryFiles disk;
  for (const char* name : {".step-1.old", ".step-2.old", "step-2", ".step-3.tmp"})
    make_folder(std::string("run/checkpoints/") + name, disk);
  std::vector<std::string> warnings, names;
  tidy_checkpoints("run", warnings, disk);
  disk.list("run/checkpoints", &names);
  CHECK(names == std::vector<std::string>{"step-1", "step-2"});
  CHECK(warnings.empty());
}
