#include "apps/processes.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "core/error.h"
#include "distributed/socket.h"

namespace agon {

namespace {

std::vector<char*> pointers(const std::vector<std::string>& command) {
  std::vector<char*> list;
  list.reserve(command.size() + 1);
  for (const std::string& word : command) list.push_back(const_cast<char*>(word.c_str()));
  list.push_back(nullptr);
  return list;
}

/// The parent of a process; 0 when it has just ended.
pid_t parent_of(const std::string& process) {
  std::ifstream file("/proc/" + process + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t end_of_name = line.rfind(')');  // a name may hold spaces and brackets
  if (end_of_name == std::string::npos || line.size() < end_of_name + 4) return 0;
  return pid_t(std::strtol(line.c_str() + end_of_name + 4, nullptr, 10));
}

}  // namespace

void adopt_orphans() { check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl: ", std::strerror(errno)); }

std::vector<pid_t> descendants() {
  std::map<pid_t, std::vector<pid_t>> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (const pid_t parent = parent_of(name)) children[parent].push_back(pid_t(std::stol(name)));
  }
  std::vector<pid_t> found = children[getpid()];
  for (size_t i = 0; i < found.size(); ++i) {
    const std::vector<pid_t>& next = children[found[i]];
    found.insert(found.end(), next.begin(), next.end());
  }
  return found;
}

bool end_descendants(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (true) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    const std::vector<pid_t> left = descendants();
    if (left.empty()) return true;
    if (Clock::now() >= deadline) return false;
    for (const pid_t process : left) kill(process, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name ? text("SIG", name, " (", strsignal(signal), ')') : text("signal ", signal);
}

std::string this_program() { return std::filesystem::read_symlink("/proc/self/exe"); }

std::string replace_with(const std::vector<std::string>& command) {
  execvp(command[0].c_str(), pointers(command).data());
  return command[0] + ": " + std::strerror(errno);
}

std::string output_of(const std::vector<std::string>& command) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int code = posix_spawnp(&child, command[0].c_str(), &actions, nullptr, pointers(command).data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  writing.close();
  if (code != 0) return {};
  std::string output;
  char bytes[4096];
  for (ssize_t n; (n = read(reading.get(), bytes, sizeof bytes)) != 0;) {
    if (n > 0) output.append(bytes, size_t(n));
    if (n < 0 && errno != EINTR) break;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? output : "";
}

}  // namespace agon
