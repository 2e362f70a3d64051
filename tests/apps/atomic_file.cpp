#include "apps/atomic_file.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

const std::string kOld(3000, 'o'), kNew(5000, 'n');

void replace(const std::string& path, FileSystem& files) {
  write_atomically(
      path,
      [](FileWriter& f) {
        f.write(kNew.data(), 2000);
        f.write(kNew.data() + 2000, 3000);
      },
      files);
}

int calls_of_replacing() {
  MemoryFiles disk;
  write_atomically("f", kOld, disk);
  FaultyFiles files(disk, Fault::none, -1);
  replace("f", files);
  return files.calls();
}

}  // namespace

TEST_CASE("atomic file: on the disk") {
  const TemporaryFolder t;
  replace(t / "f", FileSystem::real());
  CHECK(contents_of(t / "f") == kNew);
  write_atomically(t / "f", "");
  CHECK(contents_of(t / "f").empty());
  CHECK(std::distance(std::filesystem::directory_iterator(t.path()), {}) == 1);
  CHECK(contains(user_error([&] { write_atomically(t / "none/f", "x"); }), "none/.f.tmp: open failed"));
}

TEST_CASE("atomic file: every call fails once") {
  const int calls = calls_of_replacing();
  REQUIRE(calls > 10);
  for (int i = 0; i < calls; ++i) {
    for (Fault fault :
         {Fault::io_error, Fault::full, Fault::interrupted, Fault::short_write, Fault::lie, Fault::kill}) {
      CAPTURE(i);
      CAPTURE(int(fault));
      MemoryFiles disk;
      write_atomically("f", kOld, disk);
      bool killed = false;
      std::string message;
      {
        FaultyFiles files(disk, fault, i);
        try {
          replace("f", files);
        } catch (const Killed&) { killed = true; } catch (const Error& e) {
          message = e.what();
        }
        CHECK(files.struck());
      }
      const std::string found = read_file("f", 10000, disk);
      CHECK((found == kOld || found == kNew));
      if (message.empty() && !killed) CHECK(found == kNew);
      if (fault == Fault::interrupted || fault == Fault::short_write) CHECK((message.empty() && !killed));
      if (!killed) CHECK_FALSE(exists("./.f.tmp", disk));
      if (fault == Fault::full && !message.empty()) CHECK(contains(message, "No space left on device"));
      replace("f", disk);
      CHECK(read_file("f", 10000, disk) == kNew);
    }
  }
}

TEST_CASE("atomic file: a power cut after every call leaves the old or the new") {
  const int calls = calls_of_replacing();
  for (int i = 0; i <= calls; ++i) {
    for (auto cut : {MemoryFiles::Cut::all_lost, MemoryFiles::Cut::contents_lost, MemoryFiles::Cut::coins}) {
      CAPTURE(i);
      CAPTURE(int(cut));
      MemoryFiles disk;
      write_atomically("f", kOld, disk);
      {
        FaultyFiles files(disk, Fault::kill, i);
        try {
          replace("f", files);
        } catch (const Killed&) {}
      }
      disk.cut_power(cut, uint64_t(i));
      const std::string found = read_file("f", 10000, disk);
      CHECK((i == calls ? found == kNew : found == kOld || found == kNew));
    }
  }
}

TEST_CASE("atomic file: a disk that lies is caught") {
  MemoryFiles disk;
  FaultyFiles files(disk, Fault::lie, 2);
  CHECK(contains(error([&] { replace("f", files); }), "the disk did not keep what was written: found 2000 bytes"));
}

TEST_CASE("atomic file: a limit on the size of files") {
  const TemporaryFolder t;
  write_atomically(t / "f", kOld);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 4096;
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = user_error([&] { replace(t / "f", FileSystem::real()); });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  CHECK(contains(message, ".f.tmp: write failed: File too large"));
  CHECK(contents_of(t / "f") == kOld);
  CHECK(std::distance(std::filesystem::directory_iterator(t.path()), {}) == 1);
}
