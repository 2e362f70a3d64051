#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <string>

#include "core/error.h"

namespace agon::testing {

/// Starts `body` in a process of its own, which ends with its value.
inline pid_t start_forked(const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  check(child >= 0, "fork");
  if (child == 0) {
    int code = 99;
    try {
      code = body();
    } catch (const std::exception& e) { std::fprintf(stderr, "%s\n", e.what()); }
    std::fflush(nullptr);
    _exit(code);
  }
  return child;
}

/// The exit code of a child, or 128 and the signal that ended it.
inline int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) continue;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

inline int forked(const std::function<int()>& body) { return wait_for(start_forked(body)); }

/// Whether a process has ended, be it that nobody has waited for it yet.
inline bool has_ended(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t end_of_name = line.rfind(')');
  return end_of_name == std::string::npos || line.compare(end_of_name, 3, ") Z") == 0;
}

}  // namespace agon::testing
