#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "distributed/link.h"
#include "distributed/message_header.h"

namespace agon {

/// A group of ranks as one of them sees it.
struct MessageGroup {
  int64_t id = 0;          // the same on all of its ranks; no two groups that share two ranks have the same
  std::vector<int> ranks;  // by their numbers in the world
  size_t me = 0;           // the place of this rank among them
  int64_t calls = 0;       // begun
  std::map<Collective, Traffic> traffic = {};
  std::vector<double> waited = std::vector<double>(ranks.size());  // seconds, for each rank to come
};

/// One rank's part of a collective call, made of messages. First a header goes to and comes from each rank; once all
/// have come and agree, and again whenever all messages are done, the next step is taken, which may begin more.
class MessageCall {
 public:
  using Clock = std::chrono::steady_clock;

  /// The call must be without fault. Nothing is sent yet.
  MessageCall(std::shared_ptr<MessageGroup> group, const Call& call, int64_t step);

  void send_headers(Link& link, int64_t next_group);
  void send(Link& link, size_t to, std::span<const std::byte> bytes, int phase);
  void receive(Link& link, size_t from, std::span<std::byte> bytes, int phase);
  /// What is to be done next: the first step when all ranks have agreed, each other one when all messages are done.
  void then(std::function<void()> step) { steps_.push_back(std::move(step)); }

  /// Goes as far as it can without waiting; whether that was anywhere. Throws Error when the ranks disagree.
  bool advance();
  bool over() const { return agreed_ && steps_taken_ == steps_.size() && messages_.empty(); }
  /// The ranks, by their place in the group, that have not come; if all have, those from or to which data is missing.
  std::vector<size_t> awaited() const;
  bool all_have_come() const;
  /// How the headers that are here differ; empty when they do not.
  std::string difference_so_far() const;

  const MessageHeader& header(size_t rank) const { return headers_[rank]; }
  Collective operation() const { return Collective(headers_[group_->me].operation); }
  int64_t number() const { return headers_[group_->me].number; }
  int64_t step() const { return headers_[group_->me].step; }
  MessageGroup& group() const { return *group_; }
  const Tensor& tensor() const { return tensor_; }
  Traffic& traffic() const { return group_->traffic[operation()]; }
  /// Books a wait that began at `start` and is over: for each rank until it had come.
  void book_wait(Clock::time_point start) const;

 private:
  struct Part {
    size_t peer;
    std::unique_ptr<Link::Message> message;
  };
  int tag(int phase) const;
  bool collect(std::vector<Part>& parts);
  bool take_header(size_t rank);

  std::shared_ptr<MessageGroup> group_;
  Tensor tensor_;  // shared: its block stays while the call is under way
  Call call_;
  std::vector<MessageHeader> headers_, sent_;  // by rank: what has come (and the own), what went out
  std::vector<std::unique_ptr<Link::Message>> coming_;
  std::vector<Clock::time_point> came_;
  std::vector<Part> messages_;
  std::vector<std::function<void()>> steps_;
  size_t steps_taken_ = 0;
  bool agreed_ = false;
};

}  // namespace agon
