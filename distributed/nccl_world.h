#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/lane.h"
#include "distributed/nccl_library.h"

namespace agon {

/// What the NCCL communicators of one rank share: the calls that are under way, and a thread that watches them. When
/// one has not ended `deadline` after it began on the device, or NCCL reports an error, every communicator is aborted
/// and every later call fails with the reason and the last calls. NCCL's communicators do not block, so nothing holds
/// the lock for long.
class NcclWorld {
 public:
  NcclWorld(const NcclLibrary& library, Device device, std::chrono::milliseconds deadline);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;
  NcclWorld& operator=(const NcclWorld&) = delete;

  const NcclLibrary& library() const { return library_; }
  Device device() const { return device_; }
  void at_step(int64_t step);
  int64_t step();

  /// Makes a communicator, or a part of the communicator `whole`, and waits until it is ready; throws when it does not
  /// become so. Collective.
  void* open(const std::string& what, void* whole, const std::function<int(void**)>& make);
  /// Ends one. With `abandoned` nobody is waited for.
  void close(void* communicator, bool abandoned);

  /// Makes a call of the library, and waits until it stands in its stream; throws when it fails.
  void put(void* communicator, const std::string& what, const std::function<int()>& call);

  /// A call that stands in a stream, between two marks.
  struct Flight {
    std::string group;   // of ranks, in words
    int64_t number = 0;  // in the group
    std::string what;    // the call in words
    int64_t bytes = 0;   // of the tensor
    Lane::Mark ready = {}, done = {};
    Traffic* seconds = nullptr;  // to be added to when it has ended, under `lock()`; the group's
    int64_t step = 0;
    enum { queued, begun, ended } state = queued;
    std::chrono::steady_clock::time_point at = {};  // of its beginning
    double took = 0;
  };
  void watch(Flight flight);
  /// Forgets where the seconds of these go: the group ends.
  void forget(const std::map<Collective, Traffic>& of_group);
  /// A mark that nobody uses; null where there is none to be used again.
  Lane::Mark spare_mark();
  /// Waits until all that is watched has ended; throws when it fails.
  void settle(const std::string& what);

  /// Why every call fails; empty while all is well.
  std::string failure();
  void fail(const std::string& reason);
  /// `of_group` with the seconds of all that has ended.
  std::map<Collective, Traffic> measured(const std::map<Collective, Traffic>& of_group);

 private:
  void patrol();
  void look();
  void end(Flight& flight);
  void fail_locked(const std::string& reason);
  void wait_for(void* communicator, const std::string& what, int code, std::unique_lock<std::mutex>& lock);
  std::string record() const;

  const NcclLibrary& library_;
  const Device device_;
  const std::chrono::milliseconds deadline_;
  std::mutex mutex_;  // of all below, and of the library's communicators
  std::condition_variable changed_;
  bool over_ = false;
  std::string failure_;
  int64_t step_ = 0;
  std::vector<void*> communicators_;
  std::deque<void*> made_;      // NCCL writes there when it comes to it
  std::deque<Flight> flights_;  // in the order of their calls; the last ones stay when they have ended
  std::vector<Lane::Mark> spare_;
  std::thread watch_;
};

}  // namespace agon
