#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace agon {

/// Says on stderr what this rank waits for, once, when somebody wants the job to stop and the wait goes on all the
/// same: mpirun answers a rank that died by SIGTERM to the others and, a second later, SIGKILL. It does so on a thread
/// of its own, because the engine may hold up the one that waits.
class WaitReporter {
 public:
  using Clock = std::chrono::steady_clock;

  /// `asked_to_stop` is called on that thread.
  explicit WaitReporter(std::function<bool()> asked_to_stop);
  ~WaitReporter();
  WaitReporter(const WaitReporter&) = delete;
  WaitReporter& operator=(const WaitReporter&) = delete;

  /// This rank has been waiting since `start`: `where` and `for_whom`, in words.
  void waits(Clock::time_point start, const std::string& where, const std::string& for_whom);
  void waits_no_more();

 private:
  void watch();

  const std::function<bool()> asked_to_stop_;
  std::mutex mutex_;  // of what follows
  std::condition_variable over_;
  bool ends_ = false;
  Clock::time_point start_;
  std::string where_, for_whom_;  // empty: it does not wait
  std::thread thread_;
};

}  // namespace agon
