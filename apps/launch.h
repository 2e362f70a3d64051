#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace agon {

struct LaunchArguments {
  int ranks = 1;
  int max_restarts = 0;
  double grace = 60;               // seconds from a signal to the end of all ranks
  std::vector<std::string> words;  // the verb and its arguments
};

/// `agon launch`: N ranks of another verb on this machine. SIGINT, SIGTERM and SIGUSR1 reach every rank once; a second
/// SIGINT ends the job at once. However the job ends, and also when this process is killed, no process, shared memory
/// or temporary file of it is left. Returns 0; 2 where a rank ended with a user's mistake; 1 for failures, after which
/// the job is started again up to `max_restarts` times; 130 or 143 when a signal ended it.
int launch(const LaunchArguments& arguments);

/// Runs `body(asks, folder)` in a process of its own, below which everything is ended when it ends or this process
/// does. `asks` receives each SIGINT, SIGTERM and SIGUSR1 of this process as one byte; `folder` is new and empty, in
/// memory where there is room for that, and removed at the end. Returns what `body` returned.
int run_guarded(const std::function<int(int asks, const std::string& folder)>& body);

}  // namespace agon
