#pragma once
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "distributed/call.h"
#include "distributed/call_ledger.h"
#include "distributed/nccl_world.h"

namespace agon {

/// One rank's calls in one group of GPUs: how they come into the communicator's stream, what they have moved, and how
/// the group notices that its ranks call differently. A failure of any of them is thrown, told to the other ranks, and
/// thrown again by whatever is called later.
class NcclStream {
 public:
  NcclStream(std::shared_ptr<NcclWorld> world, void* communicator, std::unique_ptr<Communicator> control,
             std::string name);
  ~NcclStream();
  NcclStream(const NcclStream&) = delete;
  NcclStream& operator=(const NcclStream&) = delete;

  NcclWorld& world() const { return *world_; }
  const NcclLibrary& library() const { return world_->library(); }
  Device device() const { return world_->device(); }
  Communicator& control() const { return *control_; }
  void* communicator() const { return communicator_; }
  const Lane& lane() const { return lane_; }

  /// The ranks are about to meet on the host: if they have called differently, this is the place to see it.
  void meet(Collective operation);
  /// Whether the call is for the control communicator, and if so meet().
  bool on_host(const Call& call);
  /// The numbers that the ranks give, by rank; they meet for it.
  std::vector<int64_t> numbers_of_all(Collective operation, int64_t own);
  /// Notes a call that is to go through NCCL, after what a rank can check alone. Returns its number.
  int64_t note(const Call& call);
  /// Puts a noted call into the stream, behind what this thread has given the device, and books what it moves
  /// (`all_rows`: of all ranks in all_gather). Returns the mark of its end.
  Lane::Mark put(int64_t number, const Call& call, const std::function<int()>& library_call, int64_t all_rows = 0);
  /// Makes what this thread gives the device later wait for a call.
  void follow(Collective operation, const Lane::Mark& done);
  /// The group of the ranks that give this color.
  std::unique_ptr<NcclStream> split(int color, int key);

  std::map<Collective, Traffic> traffic() const;
  void abort(const std::string& reason);

 private:
  std::string named_operation(Collective operation) const;
  void alive(Collective operation);
  [[noreturn]] void fail(Collective operation, const std::string& why);
  [[noreturn]] void refuse(Collective operation, const std::string& failure);

  /// f(), whose failure the other ranks are told.
  template <class F>
  auto told(F&& f) {
    try {
      return f();
    } catch (const Error& e) {
      control_->abort(e.what());
      throw;
    }
  }
  /// f(), which asks the other ranks on the host for what is not a call of the user's.
  template <class F>
  auto agreed(F&& f);

  const std::shared_ptr<NcclWorld> world_;
  void* const communicator_;
  const std::unique_ptr<Communicator> control_;
  const std::string name_;  // of the group
  const int exceptions_ = std::uncaught_exceptions();
  CallLedger ledger_;
  Lane lane_;
  std::map<Collective, Traffic> moved_;     // through NCCL
  std::map<Collective, Traffic> agreeing_;  // through the control communicator, for nothing but agreement
};

}  // namespace agon
