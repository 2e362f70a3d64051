#include "apps/launch.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "apps/mpirun.h"
#include "apps/processes.h"
#include "apps/restarts.h"
#include "apps/supervisor.h"
#include "core/error.h"

namespace agon {

namespace {

void say(const std::string& line) { std::fprintf(stderr, "agon: %s\n", line.c_str()); }

/// Of memory if possible: ranks exchange what they send each other in files there.
std::string new_folder() {
  for (const std::string& parent : {std::string("/dev/shm"), std::filesystem::temp_directory_path().string()}) {
    std::string name = parent + "/agon-launch-XXXXXX";
    if (mkdtemp(name.data())) return name;
  }
  throw Error(text("cannot make a folder in /dev/shm or ", std::filesystem::temp_directory_path().string(), ": ",
                   std::strerror(errno)));
}

void remove(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

void forget_other_launchers() {
  std::vector<std::string> names;
  for (char** variable = environ; *variable; ++variable) names.emplace_back(*variable, std::strcspn(*variable, "="));
  for (const std::string& name : names)
    if (is_of_other_launcher(name)) unsetenv(name.c_str());
}

/// In the process that guards the job.
int guard(const std::function<int(int, const std::string&)>& body, int asks, const std::string& folder) {
  int code = 1;
  try {
    adopt_orphans();
    setsid();  // what a terminal sends to its foreground is for the process above
    code = body(asks, folder);
  } catch (const Error& e) {
    say(e.what());
    code = e.exit_code();
  } catch (const std::exception& e) { say(e.what()); }
  end_descendants();
  remove(folder);
  std::fflush(nullptr);
  return code;
}

/// Runs the job until it is done or there is no sense in another try.
int supervise(const LaunchArguments& arguments, const std::string& mpirun, int asks, const std::string& folder) {
  forget_other_launchers();
  const std::optional<Config> config = config_of(arguments.words);
  const std::string run = config ? config->train.out : "";
  Restarts restarts(arguments.max_restarts, last_checkpoint(run));
  std::vector<std::string> words = arguments.words;
  for (int attempt = 1;; ++attempt) {
    Job job;
    job.command = {this_program()};
    job.command.insert(job.command.end(), words.begin(), words.end());
    job.ranks = arguments.ranks;
    job.grace = std::chrono::milliseconds(int64_t(arguments.grace * 1000));
    job.mpirun = mpirun;
    const std::string own = folder + "/" + std::to_string(attempt);
    check(std::filesystem::create_directory(own), own, ": cannot be made");
    const JobOutcome outcome = Supervisor(job, own, asks).run();
    remove(own);
    if (!outcome.message.empty()) say(outcome.message);
    if (!outcome.may_restart) return outcome.code;
    std::string why;
    const bool again = restarts.again(last_checkpoint(run), why);
    if (!why.empty()) say(why);
    if (!again) return outcome.code;
    words = continued(arguments.words);
  }
}

/// Without mpirun only what needs no MPI can be started.
void refuse_mpi(const std::vector<std::string>& words) {
  const std::optional<Config> config = config_of(words);
  require(!config || config->parallel.backend == "nccl" ||
              (config->parallel.backend == "auto" && config->device.rfind("cuda", 0) == 0),
          "mpirun (Open MPI) was not found in PATH; install openmpi-bin, or train with device=cuda and "
          "parallel.backend=nccl");
}

}  // namespace

int run_guarded(const std::function<int(int, const std::string&)>& body) {
  sigset_t signals, before;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) sigaddset(&signals, signal);
  int ends[2];
  check(pipe2(ends, O_CLOEXEC) == 0, "pipe: ", std::strerror(errno));
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const std::string folder = new_folder();
  adopt_orphans();  // of the guard, should somebody kill it
  std::fflush(nullptr);
  sigprocmask(SIG_BLOCK, &signals, &before);
  const pid_t child = fork();
  if (child == 0) {
    writing.close();
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    _exit(guard(body, reading.get(), folder));
  }
  int status = 0;
  bool ended = child < 0;
  while (!ended) {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal == SIGCHLD) {
      ended = waitpid(child, &status, WNOHANG) == child;
    } else {
      const auto byte = static_cast<unsigned char>(signal);
      const ssize_t n = write(writing.get(), &byte, 1);
      check(n == 1 || errno == EPIPE, "cannot pass a signal on: ", std::strerror(errno));
    }
  }
  end_descendants();
  remove(folder);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  check(child > 0, "cannot start a process: ", std::strerror(errno));
  check(WIFEXITED(status), "the process that guards the job was killed by ", signal_name(WTERMSIG(status)));
  return WEXITSTATUS(status);
}

int launch(const LaunchArguments& arguments) {
  require(!arguments.words.empty(), "agon launch: no verb; expected for example agon launch -n 2 train CONFIG");
  const char* path = std::getenv("PATH");
  const std::string mpirun = find_mpirun(path ? path : "");
  if (mpirun.empty()) refuse_mpi(arguments.words);
  return run_guarded([&](int asks, const std::string& folder) { return supervise(arguments, mpirun, asks, folder); });
}

}  // namespace agon
