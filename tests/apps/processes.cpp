#include "apps/processes.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/apps/forked.h"
#include "tests/support/message.h"

using namespace agon;
using agon::test::check_contains;

TEST_CASE("processes: descendants are found, ended and waited for, orphans among them") {
  // In a process of its own, whose children are known.
  const int code = agon::testing::forked([] {
    adopt_orphans();
    if (!descendants().empty()) return 1;
    const std::vector<std::string> family = {"/bin/sh", "-c",
                                             "setsid sh -c 'trap \"\" TERM; sleep 100; :' & sleep 100 & wait"};
    const pid_t child = fork();
    if (child == 0) {
      replace_with(family);
      _exit(1);
    }
    while (descendants().size() < 4) usleep(1000);
    kill(child, SIGKILL);
    while (descendants().size() > 3) waitpid(child, nullptr, WNOHANG);  // the rest is ours now
    if (descendants().size() != 3) return 2;
    if (!end_descendants()) return 3;
    return descendants().empty() ? 0 : 4;
  });
  CHECK(code == 0);
}

TEST_CASE("processes: signals have names") {
  CHECK(signal_name(SIGSEGV) == "SIGSEGV (Segmentation fault)");
  CHECK(signal_name(12345) == "signal 12345");
}

TEST_CASE("processes: this program has a path") { CHECK(access(this_program().c_str(), X_OK) == 0); }

TEST_CASE("processes: what cannot be run is said, and its output is empty") {
  CHECK(replace_with({"/nonexistent/program", "argument"}) == "/nonexistent/program: No such file or directory");
  CHECK(output_of({"/nonexistent/program"}) == "");
  CHECK(output_of({"/bin/sh", "-c", "echo partly; exit 1"}) == "");
  CHECK(output_of({"/bin/sh", "-c", "read line; echo \"$0 [$line]\" \"$1\"; echo error >&2", "a b", "$HOME;"}) ==
        "a b [] $HOME;\n");
}
