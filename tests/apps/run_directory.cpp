#include "apps/run_directory.h"

#include <doctest/doctest.h>

#include "apps/checkpoint.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("run directory: a new run, an existing one, a resumed one") {
  const TemporaryFolder t;
  const std::string path = t / "runs/a";
  {
    RunDirectory run = RunDirectory::open(path, false);
    CHECK_FALSE(run.existed());
    run.write_config("seed = 1\n");
    run.open_log(-1);
    run.log(R"({"step":1})");
    run.log(R"({"step":2})");
    run.sync_log();
    CHECK(contains(user_error([&] { RunDirectory::open(path, true); }), "another process is training there"));
  }
  CHECK(contains(user_error([&] { RunDirectory::open(path, false); }), "found a run, expected none"));
  CHECK(contents_of(path + "/config.toml") == "seed = 1\n");
  CHECK(contents_of(path + "/log.jsonl") == "{\"step\":1}\n{\"step\":2}\n");
  RunDirectory run = RunDirectory::open(path, true);
  CHECK(run.existed());
  run.open_log(1);
  run.log(R"({"step":2,"again":true})");
  CHECK(contents_of(path + "/log.jsonl") == "{\"step\":1}\n{\"step\":2,\"again\":true}\n");
  CHECK(!error([&] { run.log("a\nb"); }).empty());
}

TEST_CASE("run directory: any sign of a run counts, other files do not") {
  const TemporaryFolder t;
  for (const char* name : {"config.toml", "log.jsonl", "checkpoints", "best", "latest"}) {
    std::filesystem::create_directory(t / "run");
    put(t / "run/output.txt", "");
    CHECK_FALSE(RunDirectory::open(t / "run", false).existed());
    put(t / (std::string("run/") + name), "");
    CHECK(contains(user_error([&] { RunDirectory::open(t / "run", false); }), "expected none"));
    std::filesystem::remove_all(t / "run");
  }
  put(t / "file", "");
  CHECK(contains(user_error([&] { RunDirectory::open(t / "file", false); }), "file"));
  CHECK(!user_error([&] { RunDirectory::open("", false); }).empty());
  CHECK_FALSE(RunDirectory::open(t / "none yet", true).existed());
}

TEST_CASE("run directory: a wish for a checkpoint is taken once") {
  const TemporaryFolder t;
  const RunDirectory run = RunDirectory::open(t / "run", false);
  CHECK_FALSE(run.take_checkpoint_request());
  put(t / "run/checkpoint-now", "");
  CHECK(run.take_checkpoint_request());
  CHECK_FALSE(run.take_checkpoint_request());
}

TEST_CASE("run directory: cutting the log") {
  const std::string a = "{\"step\":1,\"loss\":2.5}\n", b = "{\"step\":2}\n", c = "{\"loss\":1,\"step\":3}\n",
                    note = "{\"note\":\"x\"}\n";
  const auto cut = [](const std::string& contents, int64_t step) {
    MemoryFiles disk;
    write_atomically("log", contents, disk);
    cut_log("log", step, disk);
    return read_file("log", 1000, disk);
  };
  CHECK(cut(a + b + c, 3) == a + b + c);
  CHECK(cut(a + b + c, 2) == a + b);
  CHECK(cut(a + b + c, 0).empty());
  CHECK(cut(a + b + c, 100) == a + b + c);
  CHECK(cut(a + c + b, 2) == a + b);
  CHECK(cut(a + b + "{\"step\":2,\"lo", 2) == a + b);
  CHECK(cut(a + "{\"step\":1}", 2) == a);
  CHECK(cut(a + std::string(20, '\0') + '\n' + b, 2) == a + b);
  CHECK(cut(a + "\n[1]\n7\n{{{\n" + b, 2) == a + b);
  CHECK(cut(note + a + b, 1) == note + a);
  CHECK(cut("{\"step\":0}\n" + a, -1).empty());
  CHECK(cut("", 5).empty());
  MemoryFiles none;
  cut_log("log", 1, none);
  CHECK_FALSE(exists("log", none));
}

TEST_CASE("run directory: cutting the log is all or nothing") {
  const std::string whole = "{\"step\":1}\n{\"step\":2}\n", kept = "{\"step\":1}\n";
  for (int i = 0;; ++i) {
    MemoryFiles disk;
    write_atomically("log", whole, disk);
    bool struck = false;
    {
      FaultyFiles files(disk, Fault::kill, i);
      try {
        cut_log("log", 1, files);
      } catch (const Killed&) {}
      struck = files.struck();
    }
    disk.cut_power(MemoryFiles::Cut::coins, uint64_t(i));
    const std::string found = read_file("log", 100, disk);
    CHECK((found == kept || (struck && found == whole)));
    if (!struck) break;
  }
}
