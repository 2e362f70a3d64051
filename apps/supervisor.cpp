#include "apps/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "apps/mpirun.h"
#include "apps/processes.h"
#include "apps/rank_keeper.h"
#include "core/error.h"

namespace agon {

namespace {

/// From the first failure to SIGKILL: time for the other ranks to say what they were waiting for.
constexpr auto kFarewell = std::chrono::seconds(1);
/// For mpirun, when all ranks have ended.
constexpr auto kLastWords = std::chrono::milliseconds(200);
/// From then on nothing waits for anybody's cooperation.
constexpr auto kPatience = std::chrono::seconds(2);

sigset_t only(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  return set;
}

void unblock_all() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

std::string random_token() {
  unsigned char bytes[16];
  check(getrandom(bytes, sizeof bytes, 0) == sizeof bytes, "getrandom: ", std::strerror(errno));
  std::string token;
  for (const unsigned char byte : bytes) {
    token += "0123456789abcdef"[byte >> 4];
    token += "0123456789abcdef"[byte & 15];
  }
  return token;
}

int free_port() {
  std::vector<Address> here = resolve("127.0.0.1", 0, "host");
  listen_on(here, "127.0.0.1");
  return here.front().port();
}

}  // namespace

JobOutcome Supervisor::run() {
  const sigset_t children = only(SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, nullptr);
  child_ended_ = Descriptor(signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  check(bool(child_ended_), "signalfd: ", std::strerror(errno));
  listening_ = listen_for_keepers(folder_ + "/ranks");
  start();
  while (!over()) watch();
  for (Rank& rank : ranks_) rank.killed = rank.killed || !rank.ended;
  const bool gone = end_descendants();
  hear_the_rest();
  if (at_once_) return {128 + SIGINT, false, {}};
  if (asks_closed_) return {1, false, "the launcher has gone"};
  JobOutcome outcome = judge(ends_, job_.ranks, stop_, starter_status_);
  if (outcome.code == 1) outcome.message += what_mpirun_said();
  if (!gone) outcome = {1, false, outcome.message + "; some of its processes cannot be killed"};
  return outcome;
}

void Supervisor::start() { job_.mpirun.empty() ? start_alone() : start_with_mpirun(); }

void Supervisor::start_with_mpirun() {
  std::vector<std::string> command = mpirun_command(job_.mpirun, job_.ranks, folder_, int(kFarewell.count()));
  command.insert(command.end(), {this_program(), "keep-rank", folder_ + "/ranks"});
  command.insert(command.end(), job_.command.begin(), job_.command.end());
  const std::string said = folder_ + "/mpirun.txt";
  const pid_t self = getpid(), child = fork();
  check(child >= 0, "cannot start a process: ", std::strerror(errno));
  if (child > 0) {
    starters_ = {child};
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != self) _exit(1);
  unblock_all();
  setpgid(0, 0);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  const int output = open(said.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  dprintf(output, "%s\n", replace_with(command).c_str());
  _exit(127);
}

void Supervisor::start_alone() {
  const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 1); };
  set("WORLD_SIZE", std::to_string(job_.ranks));
  set("LOCAL_WORLD_SIZE", std::to_string(job_.ranks));
  set("MASTER_ADDR", "127.0.0.1");
  set("MASTER_PORT", std::to_string(free_port()));
  set("AGON_TOKEN", random_token());
  const pid_t self = getpid();
  for (int rank = 0; rank < job_.ranks; ++rank) {
    set("RANK", std::to_string(rank));
    set("LOCAL_RANK", std::to_string(rank));
    const pid_t child = fork();
    check(child >= 0, "cannot start a process: ", std::strerror(errno));
    if (child > 0) {
      starters_.push_back(child);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self) _exit(1);
    unblock_all();
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    int code = 1;
    try {
      code = keep_rank(folder_ + "/ranks", rank, job_.command);
    } catch (const Error& e) { dprintf(STDERR_FILENO, "agon: rank %d: %s\n", rank, e.what()); }
    _exit(code);
  }
}

bool Supervisor::over() const { return at_once_ || asks_closed_ || starters_.empty(); }

void Supervisor::watch() {
  std::vector<pollfd> wanted = {{child_ended_.get(), POLLIN, 0}, {listening_.get(), POLLIN, 0}, {asks_, POLLIN, 0}};
  for (const Rank& rank : ranks_) wanted.push_back({rank.ended && !rank.keeper ? -1 : rank.keeper.get(), POLLIN, 0});
  int wait = -1;
  for (const auto& at : {kill_ranks_at_, kill_all_at_})
    if (at) wait = wait < 0 ? milliseconds_until(*at) : std::min(wait, milliseconds_until(*at));
  if (poll(wanted.data(), wanted.size(), wait) < 0) return;  // interrupted
  // What the ranks said comes before the end of those who started them.
  for (size_t i = 0; i < ranks_.size(); ++i)
    if (wanted[3 + i].revents) hear(ranks_[i]);
  if (wanted[1].revents)
    if (Descriptor keeper = take_keeper(listening_)) {
      ranks_.emplace_back();
      ranks_.back().keeper = std::move(keeper);
    }
  if (wanted[2].revents) take_asks();
  const bool quiet = std::ranges::all_of(wanted.begin() + 1, wanted.end(), [](const pollfd& p) { return !p.revents; });
  if (wanted[0].revents && quiet) reap();
  pass_time();
}

void Supervisor::take_asks() {
  unsigned char signal = 0;
  const ssize_t n = read(asks_, &signal, 1);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) {
    asks_closed_ = true;
    return;
  }
  if (signal == SIGUSR1) return signal_ranks(SIGUSR1);
  if (signal == SIGINT && ++interrupts_ == 2) at_once_ = true;
  if (stop_) return;
  stop_ = signal;
  if (kill_ranks_at_) return;  // they are ending already
  std::fprintf(stderr, "agon: %s: the ranks have %g s to save and end; a second SIGINT ends them at once\n",
               signal_name(signal).c_str(), std::chrono::duration<double>(job_.grace).count());
  kill_ranks_at_ = Clock::now() + job_.grace;
  kill_all_at_ = *kill_ranks_at_ + kPatience;
  signal_ranks(stop_);
}

void Supervisor::signal_ranks(int signal) {
  for (Rank& rank : ranks_)
    if (rank.number >= 0 && !rank.ended) {
      send_message(rank.keeper, {RankMessage::signal, rank.number, signal});
      if (signal == SIGKILL) rank.killed = true;
    }
}

void Supervisor::hear(Rank& rank) {
  const std::optional<RankMessage> message = receive_message(rank.keeper);
  if (!message) {  // its keeper has been killed, and the rank with it
    rank.killed = true;
    if (rank.number >= 0 && !rank.ended) end_of(rank, SIGKILL);
    rank.ended = true;
    rank.keeper.close();
    return;
  }
  if (message->kind == RankMessage::began) {
    rank.number = message->rank;
    if (stop_) send_message(rank.keeper, {RankMessage::signal, rank.number, stop_});
  } else if (message->kind == RankMessage::ended) {
    end_of(rank, message->value);
  }
}

void Supervisor::end_of(Rank& rank, int status) {
  rank.ended = true;
  ends_.push_back({rank.number, status, rank.killed});
  if (status != 0 && !kill_ranks_at_) {
    kill_ranks_at_ = Clock::now() + kFarewell;
    kill_all_at_ = *kill_ranks_at_ + kPatience;
    signal_ranks(SIGTERM);
  }
  // mpirun would kill the others when the keeper of one ends with another code than 0, while they save. So the keepers
  // end together after the last rank, and mpirun is not waited for, which takes seconds over ranks that failed. Whether
  // a rank that ends with 0 ends too early only mpirun knows.
  if (kill_ranks_at_) {
    if (int(ends_.size()) < job_.ranks) return;
    kill_all_at_ = Clock::now() + kLastWords;
  }
  for (const Rank& other : ranks_)
    if (other.ended && other.keeper) send_message(other.keeper, {RankMessage::leave, other.number, 0});
}

void Supervisor::reap() {
  signalfd_siginfo ignored;
  while (read(child_ended_.get(), &ignored, sizeof ignored) > 0) continue;
  int status = 0;
  for (pid_t child; (child = waitpid(-1, &status, WNOHANG)) > 0;)
    if (std::erase(starters_, child) && status != 0 && starter_status_ == 0) starter_status_ = status;
  // Of a rank that takes its keeper with it, its own end says more.
  if (job_.mpirun.empty() && WIFSIGNALED(starter_status_)) starter_status_ = W_EXITCODE(1, 0);
}

void Supervisor::pass_time() {
  if (kill_ranks_at_ && Clock::now() >= *kill_ranks_at_) {
    kill_ranks_at_ = Clock::time_point::max();
    signal_ranks(SIGKILL);
  }
  if (kill_all_at_ && Clock::now() >= *kill_all_at_) {
    kill_all_at_ = Clock::time_point::max();
    for (Rank& rank : ranks_) rank.killed = rank.killed || !rank.ended;
    end_descendants();
    starters_.clear();
    for (Rank& rank : ranks_)
      if (!rank.ended && rank.number >= 0) end_of(rank, SIGKILL);
  }
}

/// All who could still say something have ended.
void Supervisor::hear_the_rest() {
  while (Descriptor keeper = take_keeper(listening_)) {
    ranks_.emplace_back();
    ranks_.back().keeper = std::move(keeper);
    ranks_.back().killed = true;
  }
  for (Rank& rank : ranks_)
    while (rank.keeper) hear(rank);
}

std::string Supervisor::what_mpirun_said() const {
  std::ifstream file(folder_ + "/mpirun.txt");
  const std::string said = worth_showing(std::string(std::istreambuf_iterator<char>(file), {}));
  return said.empty() ? "" : "\nmpirun says:\n" + said;
}

}  // namespace agon
