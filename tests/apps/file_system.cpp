#include "apps/file_system.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("file system: the folder of a path") {
  CHECK(folder_of("a") == ".");
  CHECK(folder_of("a/b") == "a");
  CHECK(folder_of("a//b/") == "a");
  CHECK(folder_of("/a") == "/");
  CHECK(folder_of("/") == "/");
  CHECK(folder_of("") == ".");
}

TEST_CASE("file system: folders are made with their parents") {
  const TemporaryFolder t;
  make_folder(t / "a/b/c");
  make_folder(t / "a/b/c");
  make_folder(t / "a/b/d/");
  CHECK(std::filesystem::is_directory(t / "a/b/d"));
  std::filesystem::create_directory_symlink(t / "a", t / "link");
  make_folder(t / "link");
  put(t / "file", "");
  CHECK(contains(user_error([&] { make_folder(t / "file"); }), "file"));
  CHECK(contains(user_error([&] { make_folder(t / "file/x"); }), "Not a directory"));
}

TEST_CASE("file system: reading says what is wrong") {
  const TemporaryFolder t;
  CHECK(contains(user_error([&] { read_file(t / "none", 10); }), "none: open failed: No such file or directory"));
  CHECK(contains(user_error([&] { read_file(t.path(), 10); }), "found a folder"));
  put(t / "f", "hello");
  CHECK(read_file(t / "f", 5) == "hello");
  CHECK(contains(user_error([&] { read_file(t / "f", 4); }), "5 bytes long, expected at most 4"));
  const File file(t / "f");
  char c[4];
  file.read(1, c, 4);
  CHECK(std::string(c, 4) == "ello");
  CHECK(contains(user_error([&] { file.read(2, c, 4); }), "ends at byte 5, expected at least 6"));
}

TEST_CASE("file system: the user's errors and the machine's differ") {
  CHECK_THROWS_AS(throw_system_error("p", "write", ENOSPC), UserError);
  try {
    throw_system_error("p", "write", EIO);
  } catch (const Error& e) {
    CHECK(e.exit_code() == 1);
    CHECK(std::string(e.what()) == "p: write failed: Input/output error");
  }
}

TEST_CASE("file system: the list of a folder is sorted") {
  const TemporaryFolder t;
  for (const char* name : {"b", "a", "c"}) put(t / name, "");
  std::vector<std::string> names{"old"};
  CHECK(FileSystem::real().list(t.path().c_str(), &names) == 0);
  CHECK(names == std::vector<std::string>{"a", "b", "c"});
  CHECK(FileSystem::real().list((t / "none").c_str(), &names) == -1);
}
