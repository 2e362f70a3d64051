#include "apps/rank_keeper.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "apps/processes.h"
#include "apps/rank_channel.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr std::initializer_list<int> kTheRanks = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE};
constexpr int kCannotStart = 127;  // as a shell says it

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

/// The child: becomes the rank.
[[noreturn]] void become(const std::vector<std::string>& command, const ToSupervisor& to, pid_t keeper) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != keeper) _exit(kCannotStart);
  for (const int signal : kTheRanks) std::signal(signal, SIG_DFL);
  const sigset_t none = set_of({});
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(to.output.get(), STDOUT_FILENO);
  dup2(to.error.get(), STDERR_FILENO);
  const std::string why = replace_with(command);
  std::fprintf(stderr, "agon: cannot start a rank: %s\n", why.c_str());
  _exit(kCannotStart);
}

int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

int kill_rank(pid_t child) {
  kill(child, SIGKILL);
  wait_for(child);
  return 128 + SIGKILL;
}

}  // namespace

int keep_rank(const std::string& path, int rank, const std::vector<std::string>& command) {
  // Blocked, not ignored: what is sent to the rank before it is ready for it must not be lost.
  const sigset_t children = set_of({SIGCHLD}), the_ranks = set_of(kTheRanks);
  sigprocmask(SIG_BLOCK, &children, nullptr);
  sigprocmask(SIG_BLOCK, &the_ranks, nullptr);
  const Descriptor child_ended(signalfd(-1, &children, SFD_CLOEXEC));
  check(bool(child_ended), "signalfd: ", std::strerror(errno));
  const ToSupervisor to = come_to_supervisor(path);

  const pid_t keeper = getpid(), child = fork();
  check(child >= 0, "cannot start a process: ", std::strerror(errno));
  if (child == 0) become(command, to, keeper);
  if (!send_message(to.socket, {RankMessage::began, rank, 0})) return kill_rank(child);
  int status = 0;
  while (true) {
    pollfd wanted[] = {{child_ended.get(), POLLIN, 0}, {to.socket.get(), POLLIN, 0}};
    if (poll(wanted, 2, -1) < 0) continue;
    if (wanted[0].revents) {
      signalfd_siginfo ignored;
      if (read(child_ended.get(), &ignored, sizeof ignored) > 0 && waitpid(child, &status, WNOHANG) == child) break;
      continue;  // stopped, or stopped no longer
    }
    const std::optional<RankMessage> message = receive_message(to.socket);
    if (!message) return kill_rank(child);
    if (message->kind == RankMessage::signal) kill(child, message->value);
  }
  send_message(to.socket, {RankMessage::ended, rank, status});
  while (const std::optional<RankMessage> message = receive_message(to.socket))
    if (message->kind == RankMessage::leave) break;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace agon
