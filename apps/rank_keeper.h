#pragma once
#include <string>
#include <vector>

namespace agon {

/// Runs one rank of a job and stays beside it: tells the supervisor at `path` how it ended, sends it the supervisor's
/// signals, and kills it when the supervisor is gone. The rank writes to the supervisor's standard output and error. To
/// be called in a process of its own that has no threads; returns what it should exit with: the rank's exit code, or
/// 128 and the signal that ended it. SIGTERM and the like from elsewhere, such as mpirun, are the rank's alone.
int keep_rank(const std::string& path, int rank, const std::vector<std::string>& command);

}  // namespace agon
