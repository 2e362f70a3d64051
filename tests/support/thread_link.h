#pragma once
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "distributed/link.h"

namespace agon::testing {

/// Where the ranks of a world that are threads leave messages for each other.
class PostOffice {
 public:
  explicit PostOffice(int ranks, int delay = 0) : delay_(delay), notices_(size_t(ranks)) {}
  int ranks() const { return int(notices_.size()); }

 private:
  friend class ThreadLink;
  using Key = std::tuple<int, int, int>;  // from, to, tag
  struct Letter {
    std::span<const std::byte> bytes;
    std::vector<std::byte> copy;  // of a short one, which is done when it is sent
    int looks;                    // that will not find it yet
  };
  struct Box {
    int64_t sent = 0, expected = 0;
    std::map<int64_t, Letter> letters;  // by their number
  };
  const int delay_;
  std::mutex mutex_;
  std::map<Key, Box> boxes_;
  std::vector<std::deque<std::string>> notices_;
  uint64_t draws_ = 1;
  int draw_delay() {
    draws_ = draws_ * 6364136223846793005u + 1442695040888963407u;
    return delay_ == 0 ? 0 : int(draws_ >> 33) % delay_;
  }
};

/// A rank that is a thread, with messages for a link. Long messages are done when they have arrived, as with MPI. A
/// delay lets a message be overlooked up to so many times.
class ThreadLink final : public Link {
 public:
  static constexpr size_t kShort = 256;

  ThreadLink(std::shared_ptr<PostOffice> office, int rank) : office_(std::move(office)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return office_->ranks(); }
  std::string host() const override { return "host-" + std::to_string(rank_); }

  std::unique_ptr<Message> send(int to, int tag, std::span<const std::byte> bytes) override {
    check_message(to, tag, bytes);
    const std::lock_guard lock(office_->mutex_);
    PostOffice::Box& box = office_->boxes_[{rank_, to, tag}];
    PostOffice::Letter& letter = box.letters[box.sent];
    letter.looks = office_->draw_delay();
    if (bytes.size() <= kShort) letter.copy.assign(bytes.begin(), bytes.end());
    letter.bytes = bytes.size() <= kShort ? letter.copy : bytes;
    return std::make_unique<Sent>(office_, box, box.sent++, bytes.size() <= kShort);
  }
  std::unique_ptr<Message> receive(int from, int tag, std::span<std::byte> bytes) override {
    check_message(from, tag, bytes);
    const std::lock_guard lock(office_->mutex_);
    PostOffice::Box& box = office_->boxes_[{from, rank_, tag}];
    return std::make_unique<Expected>(office_, box, box.expected++, bytes);
  }
  std::unique_ptr<Message> tell(int to, const std::string& notice) override {
    const std::lock_guard lock(office_->mutex_);
    office_->notices_[size_t(to)].push_back(notice);
    return std::make_unique<Told>();
  }
  std::optional<std::string> heard() override {
    const std::lock_guard lock(office_->mutex_);
    auto& notices = office_->notices_[size_t(rank_)];
    if (notices.empty()) return {};
    const std::string notice = notices.front();
    notices.pop_front();
    return notice;
  }
  void end(bool) override {}

 private:
  void check_message(int peer, int tag, std::span<const std::byte> bytes) const {
    check(peer >= 0 && peer < size() && peer != rank_, "rank ", rank_, " has no message for rank ", peer);
    check(tag >= 0 && tag < kTags && !bytes.empty(), "a message of ", bytes.size(), " bytes with tag ", tag);
  }

  class Sent final : public Message {
   public:
    Sent(std::shared_ptr<PostOffice> office, PostOffice::Box& box, int64_t number, bool copied)
        : office_(std::move(office)), box_(box), number_(number), copied_(copied) {}
    ~Sent() override {
      const std::lock_guard lock(office_->mutex_);
      if (!copied_) box_.letters.erase(number_);
    }
    bool done() override {
      const std::lock_guard lock(office_->mutex_);
      return copied_ || !box_.letters.contains(number_);
    }

   private:
    std::shared_ptr<PostOffice> office_;
    PostOffice::Box& box_;
    int64_t number_;
    bool copied_;
  };

  class Expected final : public Message {
   public:
    Expected(std::shared_ptr<PostOffice> office, PostOffice::Box& box, int64_t number, std::span<std::byte> bytes)
        : office_(std::move(office)), box_(box), number_(number), bytes_(bytes) {}
    bool done() override {
      const std::lock_guard lock(office_->mutex_);
      const auto letter = box_.letters.find(number_);
      if (letter == box_.letters.end() || letter->second.looks-- > 0) return false;
      const auto& arrived = letter->second.bytes;
      check(arrived.size() == bytes_.size(), "a message of ", arrived.size(), " bytes for one of ", bytes_.size());
      std::memcpy(bytes_.data(), arrived.data(), arrived.size());
      box_.letters.erase(letter);
      return true;
    }

   private:
    std::shared_ptr<PostOffice> office_;
    PostOffice::Box& box_;
    int64_t number_;
    std::span<std::byte> bytes_;
  };

  class Told final : public Message {
    bool done() override { return true; }
  };

  std::shared_ptr<PostOffice> office_;
  int rank_;
};

}  // namespace agon::testing
