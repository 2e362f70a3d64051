#include <doctest/doctest.h>

#include <algorithm>

#include "apps/checkpoint.h"
#include "core/copy.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

SavedCheckpoint save(FileSystem& files, int step, bool best = false, int keep = 2) {
  const Tensor w = tensor_of<float>({float(step), 2, 3}), m = tensor_of<float>({float(-step)});
  const NamedTensor model[] = {{"w", w}}, optimizer[] = {{"w.first", m}};
  return save_checkpoint("run", step, model, optimizer, "{\"seen\":" + std::to_string(step) + '}', "config",
                         {keep, best, &files});
}

/// The step of the newest valid checkpoint, after seeing that its contents are those of that step; -1 where there is
/// none.
int64_t newest(FileSystem& files) {
  const FoundCheckpoint found = find_latest_valid("run", files);
  if (!found.checkpoint) return -1;
  const int64_t step = found.checkpoint->step();
  CHECK(found.checkpoint->model().load("w").data<float>()[0] == float(step));
  CHECK(found.checkpoint->optimizer().load("w.first").data<float>()[0] == float(-step));
  CHECK(found.checkpoint->state() == "{\"seen\":" + std::to_string(step) + '}');
  return step;
}

std::vector<std::string> names(FileSystem& files) {
  std::vector<std::string> all;
  files.list("run/checkpoints", &all);
  return all;
}

bool tidy(FileSystem& files) {
  const auto all = names(files);
  return std::none_of(all.begin(), all.end(), [](const std::string& name) { return name[0] == '.'; });
}

/// A disk on which saving step `next` writes, replaces both pointers and removes an old checkpoint.
void prepare(FileSystem& files, int next) {
  save(files, 1);
  save(files, 2, true);
  save(files, 3);
  if (next == 3) return;
  CHECK(names(files) == std::vector<std::string>{"step-2", "step-3"});
}

int calls_of_saving(int next) {
  MemoryFiles disk;
  prepare(disk, next);
  FaultyFiles files(disk, Fault::none, -1);
  save(files, next, true);
  return files.calls();
}

}  // namespace

TEST_CASE("save checkpoint: every call of a save fails once") {
  for (int next : {3, 4}) {  // 3: in the place of one that is there
    const int calls = calls_of_saving(next);
    REQUIRE(calls > 60);
    for (int i = 0; i < calls; ++i) {
      for (Fault fault :
           {Fault::io_error, Fault::full, Fault::interrupted, Fault::short_write, Fault::lie, Fault::kill}) {
        CAPTURE(next);
        CAPTURE(i);
        CAPTURE(int(fault));
        MemoryFiles disk;
        prepare(disk, next);
        bool returned = false, killed = false;
        SavedCheckpoint saved;
        {
          FaultyFiles files(disk, fault, i);
          try {
            saved = save(files, next, true);
            returned = true;
          } catch (const Killed&) { killed = true; } catch (const Error&) {
          }
        }
        const int64_t found = newest(disk);
        CHECK((found == 3 || found == next));
        if (returned) CHECK(found == next);
        if (fault == Fault::interrupted || fault == Fault::short_write) CHECK((returned && saved.warnings.empty()));
        if (!killed) CHECK_FALSE(exists("run/checkpoints/.step-" + std::to_string(next) + ".tmp", disk));
        CHECK(save(disk, 5).warnings.empty());
        CHECK(newest(disk) == 5);
        CHECK(tidy(disk));
        CHECK(names(disk).size() <= 3);
        CHECK(read_file("run/latest", 100, disk) == "checkpoints/step-5\n");
      }
    }
  }
}

TEST_CASE("save checkpoint: one that cannot be read for a moment is not passed over") {
  MemoryFiles disk;
  prepare(disk, 4);
  FaultyFiles counting(disk, Fault::none, -1);
  find_latest_valid("run", counting);
  int refused = 0;
  for (int i = 0; i < counting.calls(); ++i) {
    CAPTURE(i);
    FaultyFiles files(disk, Fault::io_error, i);
    try {
      const FoundCheckpoint found = find_latest_valid("run", files);
      CHECK(found.checkpoint->step() == 3);
    } catch (const Error& e) {
      CHECK(e.exit_code() == 1);
      ++refused;
    }
    CHECK(newest(disk) == 3);
  }
  CHECK(refused > 10);
}

TEST_CASE("save checkpoint: a power cut after every call") {
  for (int next : {3, 4}) {
    const int calls = calls_of_saving(next);
    for (int i = 0; i <= calls; ++i) {
      for (uint64_t seed = 0; seed < 5; ++seed) {
        CAPTURE(next);
        CAPTURE(i);
        CAPTURE(seed);
        MemoryFiles disk;
        prepare(disk, next);
        {
          FaultyFiles files(disk, Fault::kill, i);
          try {
            save(files, next, true);
          } catch (const Killed&) {}
        }
        disk.cut_power(seed == 0   ? MemoryFiles::Cut::all_lost
                       : seed == 1 ? MemoryFiles::Cut::contents_lost
                                   : MemoryFiles::Cut::coins,
                       uint64_t(i) * 8 + seed);
        const int64_t found = newest(disk);
        CHECK((found == 3 || found == next));
        if (i == calls) CHECK(found == next);
        CHECK(save(disk, 5).warnings.empty());
        CHECK(newest(disk) == 5);
        CHECK(tidy(disk));
      }
    }
  }
}

TEST_CASE("save checkpoint: rotation keeps the newest and the best") {
  MemoryFiles disk;
  save(disk, 1, true);
  CHECK(read_file("run/best", 100, disk) == "checkpoints/step-1\n");
  for (int step : {2, 3, 4, 10}) save(disk, step);
  CHECK(names(disk) == std::vector<std::string>{"step-1", "step-10", "step-4"});
  save(disk, 11, true);
  CHECK(names(disk) == std::vector<std::string>{"step-10", "step-11"});
  CHECK(read_file("run/best", 100, disk) == "checkpoints/step-11\n");
  for (int step : {12, 13, 14, 15}) save(disk, step, false, 3);
  CHECK(names(disk) == std::vector<std::string>{"step-11", "step-13", "step-14", "step-15"});
}

TEST_CASE("save checkpoint: checkpoints of an abandoned future go") {
  MemoryFiles disk;
  for (int step : {1, 2, 9}) save(disk, step, step == 9, 3);
  save(disk, 3, false, 3);
  CHECK(names(disk) == std::vector<std::string>{"step-1", "step-2", "step-3"});
  CHECK(newest(disk) == 3);
  CHECK_FALSE(exists("run/best", disk));
}

TEST_CASE("save checkpoint: damaged ones do not count, other files are left alone") {
  MemoryFiles disk;
  save(disk, 1);
  save(disk, 2);
  disk.close(disk.open("run/checkpoints/step-2/model.safetensors", O_WRONLY | O_TRUNC, 0));
  disk.mkdir("run/checkpoints/mine", 0777);
  disk.mkdir("run/checkpoints/step-02", 0777);
  disk.mkdir("run/checkpoints/.step-7.tmp", 0777);
  const SavedCheckpoint saved = save(disk, 3);
  REQUIRE(saved.warnings.size() == 1);
  CHECK(contains(saved.warnings[0], "step-2/model.safetensors: damaged: found 0 bytes"));
  CHECK(names(disk) == std::vector<std::string>{"mine", "step-02", "step-1", "step-2", "step-3"});
  disk.unlink("run/checkpoints/step-3/manifest.json");
  save(disk, 4);
  CHECK(names(disk) == std::vector<std::string>{"mine", "step-02", "step-1", "step-2", "step-4"});
  CHECK(save(disk, 5).warnings.size() == 1);
  CHECK(names(disk) == std::vector<std::string>{"mine", "step-02", "step-4", "step-5"});
}

TEST_CASE("save checkpoint: what cannot be removed is a warning") {
  MemoryFiles disk;
  save(disk, 1);
  save(disk, 2);
  disk.mkdir("run/checkpoints/step-1/folder", 0777);
  const SavedCheckpoint saved = save(disk, 3);
  REQUIRE(saved.warnings.size() == 1);
  CHECK(contains(saved.warnings[0], "cannot remove run/checkpoints/step-1"));
  CHECK_FALSE(exists("run/checkpoints/step-1/manifest.json", disk));
  CHECK(newest(disk) == 3);
}

TEST_CASE("save checkpoint: symbolic links are not followed") {
  const TemporaryFolder t;
  const auto save_here = [&](int64_t step) { return save_checkpoint(t / "run", step, {}, {}, "{}", "", {}); };
  save_here(1);
  std::filesystem::create_directory(t / "precious");
  put(t / "precious/file", "x");
  std::filesystem::create_directory_symlink(t / "precious", t / "run/checkpoints/step-0");
  CHECK(save_here(2).warnings.empty());
  CHECK(contents_of(t / "precious/file") == "x");
  CHECK_FALSE(std::filesystem::exists(std::filesystem::symlink_status(t / "run/checkpoints/step-0")));
}

TEST_CASE("save checkpoint: what the caller must not ask") {
  MemoryFiles disk;
  CHECK(contains(error([&] { save(disk, 1, false, 1); }), "at least 2"));
  const auto with_state = [&](const std::string& state, const std::string& config) {
    return error([&] { save_checkpoint("run", 1, {}, {}, state, config, {2, false, &disk}); });
  };
  CHECK(contains(with_state("[]", ""), "JSON object"));
  CHECK(contains(with_state("{", ""), "cannot be written"));
  CHECK(contains(with_state("{}", "\xff"), "cannot be written"));
  CHECK(tidy(disk));
  CHECK(newest(disk) == -1);
}
