#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "apps/job_outcome.h"
#include "apps/rank_channel.h"

namespace agon {

/// N ranks of one program on this machine.
struct Job {
  std::vector<std::string> command;  ///< the program and its arguments
  int ranks = 1;
  std::chrono::milliseconds grace = std::chrono::seconds(60);  ///< from a signal to the end of all ranks
  std::string
      mpirun;  ///< starts the ranks as `agon keep-rank`; empty: the supervisor starts them itself, as torchrun would
};

/// Starts a job's ranks, passes signals on, and sees that nothing is left of them. To be used in a process of its own
/// without threads, whose children are all the job's.
class Supervisor {
 public:
  /// `folder` is empty and the job's alone. `asks` is where signals come from, one byte each; when its other end is
  /// closed the job is killed.
  Supervisor(Job job, std::string folder, int asks) : job_(std::move(job)), folder_(std::move(folder)), asks_(asks) {}

  /// Runs the job once, to the end of its last process.
  JobOutcome run();

 private:
  struct Rank {
    Descriptor keeper;
    int number = -1;  // until it has begun
    bool ended = false, killed = false;
  };

  void start();
  void start_with_mpirun();
  void start_alone();
  void watch();
  void take_asks();
  void hear(Rank& rank);
  void end_of(Rank& rank, int status);
  void reap();
  void pass_time();
  void hear_the_rest();
  void signal_ranks(int signal);
  bool over() const;
  std::string what_mpirun_said() const;

  Job job_;
  std::string folder_;
  int asks_;
  Descriptor listening_, child_ended_;
  std::vector<Rank> ranks_;
  std::vector<RankEnd> ends_;
  std::vector<pid_t> starters_;  // mpirun, or the keepers
  int starter_status_ = 0, stop_ = 0, interrupts_ = 0;
  bool asks_closed_ = false, at_once_ = false;
  std::optional<Clock::time_point> kill_ranks_at_, kill_all_at_;
};

}  // namespace agon
