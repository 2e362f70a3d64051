#include "distributed/message_call.h"

#include <algorithm>

#include "core/error.h"

namespace agon {

MessageCall::MessageCall(std::shared_ptr<MessageGroup> group, const Call& call, int64_t step)
    : group_(std::move(group)),
      tensor_(call.tensor ? *call.tensor : Tensor()),
      call_(call),
      headers_(group_->ranks.size()),
      coming_(headers_.size()),
      came_(headers_.size()) {
  if (call_.tensor) call_.tensor = &tensor_;
  headers_[group_->me] = header_of(call_, group_->id, ++group_->calls, step);
}

/// Calls that are under way at once have different tags, as long as they are fewer than 256 of a group.
int MessageCall::tag(int phase) const { return int(((group_->id % 4096) * 256 + number() % 256) * 4 + phase); }

void MessageCall::send_headers(Link& link, int64_t next_group) {
  headers_[group_->me].next_group = next_group;
  sent_.assign(headers_.size(), headers_[group_->me]);
  for (size_t i = 1; i < headers_.size(); ++i) {
    const size_t r = (group_->me + i) % headers_.size();
    if (call_.operation == Collective::all_to_all) {
      sent_[r].send_rows = call_.send_rows[r];
      sent_[r].receive_rows = call_.receive_rows[r];
    }
    coming_[r] = link.receive(group_->ranks[r], tag(0), std::as_writable_bytes(std::span(&headers_[r], 1)));
    messages_.push_back({r, link.send(group_->ranks[r], tag(0), std::as_bytes(std::span(&sent_[r], 1)))});
  }
  if (call_.operation == Collective::all_to_all) {
    headers_[group_->me].send_rows = call_.send_rows[group_->me];
    headers_[group_->me].receive_rows = call_.receive_rows[group_->me];
  }
}

void MessageCall::send(Link& link, size_t to, std::span<const std::byte> bytes, int phase) {
  if (bytes.empty()) return;
  messages_.push_back({to, link.send(group_->ranks[to], tag(phase), bytes)});
  traffic().sent += int64_t(bytes.size());
}

void MessageCall::receive(Link& link, size_t from, std::span<std::byte> bytes, int phase) {
  if (bytes.empty()) return;
  messages_.push_back({from, link.receive(group_->ranks[from], tag(phase), bytes)});
  traffic().received += int64_t(bytes.size());
}

bool MessageCall::take_header(size_t rank) {
  if (!coming_[rank] || !coming_[rank]->done()) return false;
  coming_[rank].reset();
  came_[rank] = Clock::now();
  return true;
}

bool MessageCall::all_have_come() const {
  return std::ranges::none_of(coming_, [](const auto& m) { return bool(m); });
}

bool MessageCall::advance() {
  bool moved = false;
  if (!agreed_)
    for (size_t r = 0; r < coming_.size(); ++r) moved |= take_header(r);
  moved |= std::erase_if(messages_, [](Part& p) { return p.message->done(); }) > 0;
  if (!agreed_ && all_have_come()) {
    std::string found = difference(headers_, group_->ranks);
    if (found.empty() && call_.operation == Collective::all_to_all)
      found = difference_of_rows(headers_, call_, group_->me, group_->ranks);
    if (!found.empty()) throw Error(found);
    agreed_ = moved = true;
    if (!steps_.empty()) steps_[steps_taken_++]();
  }
  while (agreed_ && messages_.empty() && steps_taken_ < steps_.size()) {
    moved = true;
    steps_[steps_taken_++]();
  }
  return moved;
}

std::vector<size_t> MessageCall::awaited() const {
  std::vector<size_t> ranks;
  for (size_t r = 0; r < coming_.size(); ++r) {
    const auto part_of = [r](const Part& p) { return p.peer == r; };
    if (all_have_come() ? std::ranges::any_of(messages_, part_of) : bool(coming_[r])) ranks.push_back(r);
  }
  return ranks;
}

std::string MessageCall::difference_so_far() const {
  std::vector<MessageHeader> here;
  std::vector<int> ranks;
  for (size_t r = 0; r < coming_.size(); ++r)
    if (!coming_[r]) {
      here.push_back(headers_[r]);
      ranks.push_back(group_->ranks[r]);
    }
  return difference(here, ranks);
}

void MessageCall::book_wait(Clock::time_point start) const {
  double last = 0;
  for (size_t r = 0; r < coming_.size(); ++r) {
    if (r == group_->me) continue;
    const Clock::time_point came = coming_[r] ? Clock::now() : came_[r];
    const double waited = std::max(0.0, std::chrono::duration<double>(came - start).count());
    group_->waited[r] += waited;
    last = std::max(last, waited);
  }
  traffic().waited += last;
}

}  // namespace agon
