#include "apps/launch.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "apps/processes.h"
#include "distributed/socket.h"
#include "tests/apps/forked.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

// The verb with mpirun, and what becomes of a training, is tests/launch.sh.

namespace {

/// Runs a guarded body in a process of its own, in which nothing else has children or signals.
int guarded(const std::function<int(int, const std::string&)>& body) {
  return forked([&] {
    const int code = run_guarded(body);
    return descendants().empty() ? code : 98;
  });
}

int read_ask(int asks) {
  unsigned char byte = 0;
  return read(asks, &byte, 1) == 1 ? byte : 0;
}

}  // namespace

TEST_CASE("launch: a guarded body has a folder that is gone afterwards, and its value is returned") {
  const TemporaryFolder notes;
  CHECK(guarded([&](int, const std::string& folder) {
          put(notes / "folder", folder);
          put(folder + "/file", "contents");
          return std::filesystem::exists(folder + "/file") ? 5 : 1;
        }) == 5);
  CHECK(!std::filesystem::exists(contents_of(notes / "folder")));
}

TEST_CASE("launch: signals arrive at the body, once each") {
  CHECK(guarded([](int asks, const std::string&) {
          const pid_t above = getppid();
          for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) {
            kill(above, signal);
            if (read_ask(asks) != signal) return 1;
          }
          return 0;
        }) == 0);
}

TEST_CASE("launch: what the body leaves running is ended") {
  const TemporaryFolder notes;
  CHECK(guarded([&](int, const std::string&) {
          put(notes / "left", std::to_string(start_forked([] { return replace_with({"sleep", "100"}), 1; })));
          return 0;
        }) == 0);
  CHECK(has_ended(pid_t(std::stol(contents_of(notes / "left")))));
}

TEST_CASE("launch: a body that is killed is a failure, and nothing is left of it") {
  const TemporaryFolder notes;
  const int code = forked([&] {
    const std::string message = error([&] {
      run_guarded([&](int, const std::string& folder) {
        put(notes / "folder", folder);
        put(notes / "left", std::to_string(start_forked([] { return replace_with({"sleep", "100"}), 1; })));
        std::raise(SIGKILL);
        return 0;
      });
    });
    return contains(message, "killed by SIGKILL") ? 0 : 1;
  });
  CHECK(code == 0);
  CHECK(!std::filesystem::exists(contents_of(notes / "folder")));
  CHECK(has_ended(pid_t(std::stol(contents_of(notes / "left")))));
}

TEST_CASE("launch: a body above which all is killed notices, and takes everything with it") {
  const TemporaryFolder notes;
  const pid_t above = start_forked([&] {
    return run_guarded([&](int asks, const std::string& folder) {
      put(notes / "folder", folder);
      put(notes / "left", std::to_string(start_forked([] { return replace_with({"sleep", "100"}), 1; })));
      put(notes / "ready", "");
      return read_ask(asks);
    });
  });
  while (!std::filesystem::exists(notes / "ready")) usleep(1000);
  kill(above, SIGKILL);
  wait_for(above);
  while (std::filesystem::exists(contents_of(notes / "folder"))) usleep(1000);
  CHECK(has_ended(pid_t(std::stol(contents_of(notes / "left")))));
}

TEST_CASE("launch: errors of a body have their exit codes") {
  CHECK(guarded([](int, const std::string&) -> int { throw UserError("expected by the test: a user's mistake"); }) ==
        2);
  CHECK(guarded([](int, const std::string&) -> int { throw Error("expected by the test: a failure"); }) == 1);
}

TEST_CASE("launch: without mpirun it starts what needs no MPI, and refuses what does") {
  const auto without_mpirun = [](const std::vector<std::string>& words) {
    return forked([&] {
      setenv("PATH", "/nonexistent", 1);
      LaunchArguments arguments;
      arguments.ranks = 2;
      arguments.words = words;
      int code = 0;
      const std::string message = user_error([&] { code = launch(arguments); });
      return contains(message, "openmpi-bin") ? 77 : code;
    });
  };
  const TemporaryFolder folder;
  const std::string config = folder / "a.toml";
  put(config, "device = \"cuda\"\n");
  // The ranks are this test program, which does not know these words and runs no case for them.
  CHECK(without_mpirun({"--version"}) == 0);
  CHECK(without_mpirun({"train", config, "parallel.backend=mpi", "--version"}) == 77);
  CHECK(without_mpirun({"train", config, "device=cpu", "--version"}) == 77);
  CHECK(without_mpirun({"train", config, "--version"}) == 0);
  CHECK(without_mpirun({"train", config, "device=cpu", "parallel.backend=nccl", "--version"}) == 0);
}

TEST_CASE("launch: no verb is the user's mistake") {
  CHECK(contains(user_error([] { launch({}); }), "no verb"));
}
