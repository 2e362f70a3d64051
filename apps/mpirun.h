#pragma once
#include <string>
#include <vector>

namespace agon {

/// The path of Open MPI's mpirun in a list of folders as in PATH; "" where there is none. Other MPIs' are passed over.
std::string find_mpirun(const std::string& path);

/// How mpirun starts a number of ranks on this machine and leaves nothing anywhere but in `folder`: its session and the
/// ranks' shared memory are there. `seconds` is what ranks that go on after one has failed get between SIGTERM and
/// SIGKILL.
std::vector<std::string> mpirun_command(const std::string& mpirun, int ranks, const std::string& folder, int seconds);

/// Whether a variable is an outer launcher's or batch system's: a job started inside must not see it, or mpirun would
/// take another job's machines, and ranks themselves for others.
bool is_of_other_launcher(const std::string& variable);

/// What mpirun said, without its accounts of ranks that ended, which are told better elsewhere.
std::string worth_showing(const std::string& said);

}  // namespace agon
