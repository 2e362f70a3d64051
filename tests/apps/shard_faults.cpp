// Saving on many ranks while the disk fails, or a rank dies, at any one system call.

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>

#include "apps/checkpoint.h"
#include "tests/apps/layouts.h"
#include "tests/support/cuda.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int kStep = kSlow ? 3 : 1;  // of the calls that are struck
constexpr int kRanks = 4, kExpert = 2, kData = 2;

const WholeRun& run_of(int64_t step) {
  static const std::vector<WholeRun> runs = [] {
    std::vector<WholeRun> made;
    for (uint64_t i = 0; i < 6; ++i) made.emplace_back(100 * i);
    return made;
  }();
  return runs.at(size_t(step));
}

struct Saved {
  std::vector<std::string> messages{size_t(kRanks)};  // what each rank threw
  std::vector<int> calls{kRanks, 0}, codes{kRanks, 0};
  bool died = false;
  std::vector<std::string> warnings;
};

/// Saves on all ranks; the disk of one fails at one of its calls.
Saved save(FileSystem& disk, int64_t step, int faulty = -1, Fault fault = Fault::none, int at = -1) {
  SharedFiles shared(disk);
  Saved saved;
  saved.calls.assign(kRanks, 0);
  saved.codes.assign(kRanks, 0);
  try {
    run_on_threads(kRanks, [&](Communicator& comm) {
      const auto rank = size_t(comm.rank());
      FaultyFiles files(shared, comm.rank() == faulty ? fault : Fault::none, at);
      const Holding holding(run_of(step), comm.rank(), kExpert, kData);
      try {
        const SavedCheckpoint done =
            save_checkpoint("run", step, holding.model, holding.optimizer, "{\"seen\":" + std::to_string(step) + '}',
                            "config", {2, true, &files}, comm);
        if (rank == 0) saved.warnings = done.warnings;
      } catch (const Error& e) {
        saved.messages[rank] = e.what();
        saved.codes[rank] = e.exit_code();
      }
      saved.calls[rank] = files.calls();
    });
  } catch (const Killed&) { saved.died = true; }
  return saved;
}

/// The step of the newest valid checkpoint, after seeing that its contents are those of that step.
int64_t newest(FileSystem& disk) {
  const FoundCheckpoint found = find_latest_valid("run", disk);
  if (!found.checkpoint) return -1;
  const Checkpoint& c = *found.checkpoint;
  bool same = c.state() == "{\"seen\":" + std::to_string(c.step()) + '}';
  for (const NamedTensor& t : run_of(c.step()).model) same = same && identical(c.model().load(t.name), t.tensor);
  for (const NamedTensor& t : run_of(c.step()).optimizer)
    same = same && identical(c.optimizer().load(t.name), t.tensor);
  CHECK(same);
  return c.step();
}

bool tidy(FileSystem& disk) {
  std::vector<std::string> names;
  disk.list("run/checkpoints", &names);
  return std::ranges::none_of(names, [](const std::string& name) { return name[0] == '.'; });
}

/// A disk on which saving step `next` replaces both pointers and removes an old checkpoint, or takes the place of one.
const MemoryFiles& prepared() {
  static const auto disk = [] {
    auto made = std::make_unique<MemoryFiles>();
    for (int64_t step : {1, 2, 3}) save(*made, step);
    return made;
  }();
  return *disk;
}

/// By one rank: it takes less time than by four.
void check_next_save(FileSystem& disk) {
  const SavedCheckpoint saved =
      save_checkpoint("run", 5, run_of(5).model, run_of(5).optimizer, "{\"seen\":5}", "config", {2, false, &disk});
  CHECK(saved.warnings.empty());
  CHECK(newest(disk) == 5);
  CHECK(tidy(disk));
}

}  // namespace

TEST_CASE("shard faults: every call of every rank fails once") {
  for (const int64_t next : {3, 4}) {
    MemoryFiles counted(prepared());
    const Saved whole = save(counted, next);
    REQUIRE(whole.calls[0] > 60);
    REQUIRE(whole.calls[3] > 10);
    int failures = 0;
    for (int rank = 0; rank < kRanks; ++rank)
      for (int i = 0; i < whole.calls[size_t(rank)]; i += kStep)
        for (const Fault fault : {Fault::io_error, Fault::full, Fault::interrupted, Fault::short_write, Fault::lie}) {
          CAPTURE(next);
          CAPTURE(rank);
          CAPTURE(i);
          CAPTURE(int(fault));
          MemoryFiles disk(prepared());
          const Saved saved = save(disk, next, rank, fault, i);
          // All ranks, and the same.
          for (const std::string& message : saved.messages) CHECK(message == saved.messages[0]);
          for (const int code : saved.codes) CHECK(code == saved.codes[0]);
          const int64_t found = newest(disk);
          if (saved.messages[0].empty()) {
            CHECK(found == next);
          } else {
            ++failures;
            CHECK((found == 3 || found == next));
            CHECK(saved.messages[0].starts_with("rank " + std::to_string(rank) + " on "));
            CHECK(contains(saved.messages[0], ": run"));
            if (fault == Fault::full) CHECK(contains(saved.messages[0], "No space left on device"));
          }
          if (fault == Fault::interrupted || fault == Fault::short_write)
            CHECK((saved.messages[0].empty() && saved.warnings.empty()));
          CHECK_FALSE(exists("run/checkpoints/.step-" + std::to_string(next) + ".tmp", disk));
          check_next_save(disk);
        }
    CHECK(failures > 150 / kStep);
  }
}

TEST_CASE("shard faults: every rank dies once at every call") {
  for (const int64_t next : {3, 4}) {
    MemoryFiles counted(prepared());
    const Saved whole = save(counted, next);
    for (int rank = 0; rank < kRanks; ++rank)
      for (int i = 0; i < whole.calls[size_t(rank)]; i += kStep) {
        CAPTURE(next);
        CAPTURE(rank);
        CAPTURE(i);
        MemoryFiles disk(prepared());
        const Saved saved = save(disk, next, rank, Fault::kill, i);
        CHECK((saved.died || i + 1 == whole.calls[size_t(rank)]));  // a last close, which does not throw
        const int64_t found = newest(disk);
        CHECK((found == 3 || found == next));
        for (int r = 0; r < kRanks; ++r)
          if (r != rank && saved.died) CHECK_FALSE(saved.messages[size_t(r)].empty());
        // The power goes with it, or does not.
        for (const MemoryFiles::Cut cut : {MemoryFiles::Cut::nothing_lost, MemoryFiles::Cut::all_lost,
                                           MemoryFiles::Cut::contents_lost, MemoryFiles::Cut::coins}) {
          CAPTURE(int(cut));
          MemoryFiles after(disk);
          after.cut_power(cut, uint64_t(i));
          CHECK((newest(after) == 3 || newest(after) == next));
          check_next_save(after);
        }
      }
  }
}

TEST_CASE("shard faults: what has been saved outlasts a power cut") {
  for (const MemoryFiles::Cut cut : {MemoryFiles::Cut::all_lost, MemoryFiles::Cut::contents_lost}) {
    MemoryFiles disk(prepared());
    save(disk, 4);
    disk.cut_power(cut, 1);
    CHECK(newest(disk) == 4);
  }
}

TEST_CASE("shard faults: a checkpoint that cannot be read for a moment is passed over by no rank") {
  MemoryFiles disk(prepared());
  SharedFiles shared(disk);
  const auto find = [&](int faulty, int at) {
    std::mutex mutex;
    std::vector<int> calls(kRanks, 0);
    std::set<std::string> outcomes;
    run_on_threads(kRanks, [&](Communicator& comm) {
      FaultyFiles files(shared, comm.rank() == faulty ? Fault::io_error : Fault::none, at);
      std::string outcome;
      try {
        const FoundCheckpoint found = find_latest_valid("run", comm, files);
        outcome = "step " + std::to_string(found.checkpoint->step());
        CHECK(found.skipped.empty());
      } catch (const Error& e) {
        outcome = e.what();
        CHECK(e.exit_code() == 1);
      }
      const std::lock_guard lock(mutex);
      calls[size_t(comm.rank())] = files.calls();
      outcomes.insert(outcome);
    });
    CHECK(outcomes.size() == 1);
    return std::pair(calls, *outcomes.begin());
  };
  const std::vector<int> calls = find(-1, -1).first;
  int refused = 0;
  for (int rank = 0; rank < kRanks; ++rank)
    for (int i = 0; i < calls[size_t(rank)]; ++i) {
      CAPTURE(rank);
      CAPTURE(i);
      const std::string outcome = find(rank, i).second;
      if (outcome == "step 3") continue;
      ++refused;
      CHECK(outcome.starts_with("rank " + std::to_string(rank) + " on "));
      CHECK(contains(outcome, "Input/output error"));
    }
  CHECK(refused > 100);
}
