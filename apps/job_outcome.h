#pragma once
#include <string>
#include <vector>

namespace agon {

/// How a rank's process ended.
struct RankEnd {
  int rank = 0;
  int status = 0;       ///< of waitpid
  bool killed = false;  ///< by who ends the job, since it did not end by itself
};

struct JobOutcome {
  int code = 0;              ///< what `agon launch` exits with
  bool may_restart = false;  ///< a failure, neither a user's mistake nor a signal
  std::string message;       ///< empty when there is nothing to say
};

/// What has become of a job, from its ranks' ends in the order of time. `stop` is the signal that asked the job to end,
/// or 0; `starter` is the status of waitpid of what started the ranks. Codes: 0; 2 where a rank ended with a user's
/// mistake; 128 and the signal, where ranks ended because of one; 1 for all else.
JobOutcome judge(const std::vector<RankEnd>& ends, int ranks, int stop, int starter);

}  // namespace agon
