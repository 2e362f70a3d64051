#pragma once
#include <functional>
#include <string>
#include <vector>

#include "distributed/message_call.h"
#include "distributed/wait_reporter.h"

namespace agon {

/// What all groups of this process share: the link to the other ranks, the calls under way, and, when one failed, why
/// all do from then on. When it dies it waits for the other ranks to have done their work too, unless the job failed.
class MessageWorld {
 public:
  MessageWorld(std::unique_ptr<Link> link, CommunicatorOptions options);
  ~MessageWorld();
  MessageWorld(const MessageWorld&) = delete;
  MessageWorld& operator=(const MessageWorld&) = delete;

  /// Begins a call on this rank: checks it, sends its headers, and lets `build` add its messages and steps.
  /// Throws Error when it, or anything before it, has failed.
  std::shared_ptr<MessageCall> start(const std::shared_ptr<MessageGroup>& group, const Call& call,
                                     const std::function<void(MessageCall&)>& build);
  /// Until the call is over. Throws Error when it does not come to that.
  void wait(const std::shared_ptr<MessageCall>& call);
  /// Lets all calls under way go on, without waiting.
  void progress();
  /// The call will not be waited for, so nothing can be right from here on.
  void give_up(const MessageCall& call);
  void abort(const std::string& reason);

  Link& link() { return *link_; }
  /// A block of at least so many bytes that nobody else holds; it is used again once its holder has let it go.
  std::shared_ptr<std::byte> scratch(size_t bytes);

  void know_hosts(std::vector<std::string> hosts);  // by rank
  const std::string& host(int rank) const { return hosts_.at(size_t(rank)); }
  std::string name(int rank) const;
  const std::shared_ptr<MessageGroup>& all() const { return all_; }

  int64_t step = 0;        // of the optimizer
  int64_t next_group = 2;  // the first group id not seen: 0 is all ranks, 1 their meeting at the start

 private:
  class Wait;
  bool advance(const MessageCall* awaited);
  void listen();
  void fail(const std::string& reason);
  void tell_all(const std::string& notice);
  [[noreturn]] void refuse(Collective operation, const std::string& more = "") const;
  std::string place(const MessageCall& call) const;
  std::string names(const MessageCall& call, const std::vector<size_t>& ranks) const;

  const std::unique_ptr<Link> link_;
  const CommunicatorOptions options_;
  const std::shared_ptr<MessageGroup> all_;
  const int exceptions_;                                 // on their way when this was made
  std::vector<std::shared_ptr<MessageCall>> under_way_;  // oldest first
  std::vector<std::pair<std::shared_ptr<std::byte>, size_t>> scratch_;
  std::vector<std::string> hosts_;
  std::chrono::microseconds patience_{0};  // how long a wait does without giving way
  std::string failure_;                    // why every call fails from now on; empty while all is well
  bool heard_ = false;                     // of it from another rank
  bool told_ = false;                      // the other ranks know it
  WaitReporter reporter_;
};

}  // namespace agon
