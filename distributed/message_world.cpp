#include "distributed/message_world.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <iostream>
#include <numeric>
#include <optional>

#include "core/storage.h"
#include "distributed/names.h"

namespace agon {

namespace {

using Clock = MessageCall::Clock;
using std::chrono::milliseconds;

constexpr int kPollsBetweenLooks = 32, kPollsBeforeYielding = 16;
constexpr milliseconds kToTell{300};  // how long a failing rank tries to let the others know
constexpr std::chrono::microseconds kBetweenLooks{50}, kBetweenReports{10000};
// How long a wait keeps its processor to itself where all ranks have one: most are shorter, and a busy machine may not
// give it back for milliseconds.
constexpr std::chrono::microseconds kPatience{200};
constexpr int64_t kCallsAtOnce = 128;  // of a group: their tags differ (MessageCall::tag)

milliseconds since(Clock::time_point start) { return std::chrono::duration_cast<milliseconds>(Clock::now() - start); }

std::shared_ptr<MessageGroup> all_ranks(const Link& link) {
  std::vector<int> ranks(size_t(link.size()), 0);
  std::iota(ranks.begin(), ranks.end(), 0);
  return std::make_shared<MessageGroup>(MessageGroup{.ranks = std::move(ranks), .me = size_t(link.rank())});
}

/// Adds the time it lives to a call's traffic.
class Stopwatch {
 public:
  explicit Stopwatch(Traffic& traffic) : traffic_(traffic) {}
  ~Stopwatch() { traffic_.seconds += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  Traffic& traffic_;
  const Clock::time_point start_ = Clock::now();
};

}  // namespace

MessageWorld::MessageWorld(std::unique_ptr<Link> link, CommunicatorOptions options)
    : link_(std::move(link)),
      options_(std::move(options)),
      all_(all_ranks(*link_)),
      exceptions_(std::uncaught_exceptions()),
      reporter_(options_.asked_to_stop) {}

MessageWorld::~MessageWorld() {
  const auto say = [](const std::exception& e) { std::cerr << text("agon: ", e.what(), '\n'); };
  try {
    if (failure_.empty() && std::uncaught_exceptions() == exceptions_)
      wait(start(all_, {.operation = Collective::end}, [](MessageCall&) {}));
    else if (!told_)
      abort(failure_.empty() ? "it has ended with an error" : failure_);
  } catch (const std::exception& e) { say(e); }
  under_way_.clear();
  try {
    link_->end(failure_.empty());
  } catch (const std::exception& e) { say(e); }
}

void MessageWorld::know_hosts(std::vector<std::string> hosts) {
  hosts_ = std::move(hosts);
  const auto here = std::ranges::count(hosts_, hosts_[size_t(link_->rank())]);
  patience_ = here <= sysconf(_SC_NPROCESSORS_ONLN) ? kPatience : kPatience * 0;
}

std::string MessageWorld::name(int rank) const {
  return hosts_.empty() ? "rank " + std::to_string(rank) : named(rank, hosts_[size_t(rank)]);
}

std::string MessageWorld::names(const MessageCall& call, const std::vector<size_t>& ranks) const {
  std::string list;
  for (size_t r : ranks) list += (list.empty() ? "" : ", ") + name(call.group().ranks[r]);
  return list;
}

std::string MessageWorld::place(const MessageCall& call) const {
  return text(named_call(call.number(), call.group().ranks), ", ", call.operation());
}

void MessageWorld::refuse(Collective operation, const std::string& more) const {
  throw Error(
      text(operation, " on ", name(link_->rank()), step ? text(" in step ", step) : "", " failed: ", failure_, more));
}

void MessageWorld::fail(const std::string& reason) {
  if (!failure_.empty()) return;
  failure_ = reason;
  tell_all(text(name(link_->rank()), step ? text(" in step ", step) : "", ": ", reason));
}

void MessageWorld::abort(const std::string& reason) {
  if (told_) return;
  failure_ = text(name(link_->rank()), ": ", reason.empty() ? "no reason given" : reason);
  tell_all(failure_);
}

void MessageWorld::tell_all(const std::string& notice) {
  told_ = true;
  const Clock::time_point start = Clock::now();
  try {
    std::vector<std::unique_ptr<Link::Message>> notices;
    for (int r = 0; r < link_->size(); ++r)
      if (r != link_->rank()) notices.push_back(link_->tell(r, notice));
    while (std::erase_if(notices, [](auto& m) { return m->done(); }), !notices.empty() && since(start) < kToTell)
      sched_yield();
  } catch (const Error& e) { std::cerr << text("agon: the other ranks could not be told: ", e.what(), '\n'); }
}

void MessageWorld::listen() {
  if (!failure_.empty()) return;
  if (const auto notice = link_->heard()) {
    failure_ = *notice;
    told_ = heard_ = true;
  }
}

std::shared_ptr<MessageCall> MessageWorld::start(const std::shared_ptr<MessageGroup>& group, const Call& call,
                                                 const std::function<void(MessageCall&)>& build) {
  Traffic& traffic = group->traffic[call.operation];
  const Stopwatch watch(traffic);
  ++traffic.calls;
  const auto too_old = [&](const auto& c) {
    return &c->group() == group.get() && c->number() + kCallsAtOnce <= group->calls;
  };
  for (auto old = under_way_.begin(); (old = std::ranges::find_if(under_way_, too_old)) != under_way_.end();)
    wait(std::shared_ptr(*old));
  std::shared_ptr<MessageCall> started;
  try {
    listen();
    if (const std::string found = fault(call, int64_t(group->ranks.size())); !found.empty())
      fail(
          text(named_call(group->calls + 1, group->ranks), ", ", call.operation, ": rank ", link_->rank(), ' ', found));
    if (failure_.empty()) {
      started = std::make_shared<MessageCall>(group, call, step);
      started->send_headers(*link_, next_group);
      build(*started);
      under_way_.push_back(started);
    }
  } catch (const Error& e) { fail(text(call.operation, ": ", e.what())); }
  if (!failure_.empty()) refuse(call.operation);
  progress();
  return started;
}

bool MessageWorld::advance(const MessageCall* awaited) {
  bool moved = false;
  for (const auto& call : under_way_) try {
      const bool it_moved = call->advance();
      moved |= it_moved && call.get() == awaited;
    } catch (const Error& e) { fail(text(place(*call), ": ", e.what())); }
  std::erase_if(under_way_, [](const auto& call) { return call->over(); });
  return moved;
}

void MessageWorld::progress() {
  if (failure_.empty()) advance(nullptr);
}

void MessageWorld::give_up(const MessageCall& call) {
  if (std::erase_if(under_way_, [&](const auto& c) { return c.get() == &call; }) && failure_.empty())
    failure_ = text(place(call), ": was started and not finished");
}

/// What a waiting rank watches beside its messages.
class MessageWorld::Wait {
 public:
  Wait(MessageWorld& world, const MessageCall& call) : world_(world), call_(call) {}
  ~Wait() {
    if (reported_) world_.reporter_.waits_no_more();
  }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;
  Clock::time_point start() const { return start_; }

  void poll(bool moved) {
    moved_ |= moved;
    idle_ = moved ? 0 : idle_ + 1;
    ++polls_;
    if (idle_ <= kPollsBeforeYielding && polls_ % kPollsBetweenLooks) return;
    Clock::time_point now = Clock::now();
    if (idle_ <= kPollsBeforeYielding) idle_since_ = now;
    if (idle_ > kPollsBeforeYielding && now - idle_since_ >= world_.patience_) {
      sched_yield();  // which may take long
      now = Clock::now();
    }
    if (now - looked_ >= kBetweenLooks) look(now);
  }

 private:
  void look(Clock::time_point now) {
    looked_ = now;
    world_.listen();
    if (moved_) last_move_ = now;
    moved_ = false;
    if (now - last_move_ >= world_.options_.deadline) world_.fail(overdue());
    if (reported_ && now - *reported_ < kBetweenReports) return;
    reported_ = now;
    report();
  }

  std::string overdue() const {
    const std::string others = call_.all_have_come() ? "" : call_.difference_so_far();
    return text(world_.place(call_), ": waited ", duration(since(start_)), " for ",
                call_.all_have_come() ? "data from or to " : "", world_.names(call_, call_.awaited()),
                others.empty() ? "" : "; of those that came, " + others);
  }

  void report() const {
    world_.reporter_.waits(start_,
                           text(world_.name(world_.link_->rank()), call_.step() ? text(" in step ", call_.step()) : "",
                                ", in ", world_.place(call_), ","),
                           world_.names(call_, call_.awaited()));
  }

  MessageWorld& world_;
  const MessageCall& call_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point looked_ = start_, last_move_ = start_, idle_since_ = start_;
  std::optional<Clock::time_point> reported_;
  int polls_ = 0, idle_ = 0;
  bool moved_ = false;
};

void MessageWorld::wait(const std::shared_ptr<MessageCall>& call) {
  const Stopwatch watch(call->traffic());
  Wait wait(*this, *call);
  while (failure_.empty() && !call->over()) wait.poll(advance(call.get()));
  call->book_wait(wait.start());
  if (call->over()) return;
  const std::vector<size_t> awaited = call->awaited();
  const std::string others = awaited.empty() || !heard_ ? "" : text("; it was waiting for ", names(*call, awaited));
  std::erase(under_way_, call);
  refuse(call->operation(), others);
}

std::shared_ptr<std::byte> MessageWorld::scratch(size_t bytes) {
  for (auto& [block, size] : scratch_)
    if (block.use_count() == 1 && size >= bytes) return block;
  std::erase_if(scratch_, [](const auto& s) { return s.first.use_count() == 1; });  // too small for what is needed now
  return scratch_.emplace_back(allocate_block({}, bytes), bytes).first;
}

}  // namespace agon
