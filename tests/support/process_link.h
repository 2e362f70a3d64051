#pragma once
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "core/error.h"
#include "distributed/host.h"
#include "distributed/link.h"

namespace agon::testing {

/// A rank that is a process, with a socket to each other rank: for tests of ranks where no MPI is installed.
class ProcessLink final : public Link {
 public:
  /// sockets[r] leads to rank r; the own place is -1.
  ProcessLink(int rank, const std::vector<int>& sockets) : rank_(rank), peers_(sockets.size()) {
    for (size_t r = 0; r < sockets.size(); ++r) peers_[r].socket = sockets[r];
  }
  int rank() const override { return rank_; }
  int size() const override { return int(peers_.size()); }
  std::string host() const override { return this_host(); }

  std::unique_ptr<Message> send(int to, int tag, std::span<const std::byte> bytes) override {
    return std::make_unique<Sent>(*this, to, put(to, tag, bytes));
  }
  std::unique_ptr<Message> receive(int from, int tag, std::span<std::byte> bytes) override {
    Box& box = peers_[size_t(from)].boxes[tag];
    return std::make_unique<Expected>(*this, from, box, box.expected++, bytes);
  }
  std::unique_ptr<Message> tell(int to, const std::string& notice) override {
    return std::make_unique<Sent>(*this, to, put(to, kTags, std::as_bytes(std::span(notice))));
  }
  std::optional<std::string> heard() override {
    pump();
    for (Peer& peer : peers_) {
      Box& box = peer.boxes[kTags];
      if (box.arrived.empty()) continue;
      const auto first = box.arrived.begin();
      const std::string notice(reinterpret_cast<const char*>(first->second.data()), first->second.size());
      box.arrived.erase(first);
      return notice;
    }
    return {};
  }
  void end(bool) override {}

 private:
  struct Box {
    int64_t expected = 0, next = 0;
    std::map<int64_t, std::vector<std::byte>> arrived;  // by their number
  };
  struct Peer {
    int socket = -1;
    bool gone = false;
    std::deque<std::byte> out;
    int64_t given = 0, flushed = 0;  // bytes
    std::vector<std::byte> in;
    std::map<int, Box> boxes;  // by tag
  };
  struct Head {
    int64_t tag, bytes;
  };

  /// Returns how many bytes have to be flushed for it to have gone.
  int64_t put(int to, int tag, std::span<const std::byte> bytes) {
    Peer& peer = peers_[size_t(to)];
    const Head head{tag, int64_t(bytes.size())};
    const auto head_bytes = std::as_bytes(std::span(&head, 1));
    peer.out.insert(peer.out.end(), head_bytes.begin(), head_bytes.end());
    peer.out.insert(peer.out.end(), bytes.begin(), bytes.end());
    peer.given += int64_t(sizeof head + bytes.size());
    pump();
    return peer.given;
  }

  void pump() {
    for (Peer& peer : peers_) {
      if (peer.socket < 0 || peer.gone) continue;
      write(peer);
      read(peer);
    }
  }
  static void write(Peer& peer) {
    std::byte piece[65536];
    while (!peer.out.empty()) {
      const size_t n = std::min(sizeof piece, peer.out.size());
      std::copy_n(peer.out.begin(), n, piece);
      const ssize_t sent = ::send(peer.socket, piece, n, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent <= 0) {
        peer.gone = peer.gone || (errno != EAGAIN && errno != EINTR);
        return;
      }
      peer.out.erase(peer.out.begin(), peer.out.begin() + sent);
      peer.flushed += sent;
    }
  }
  static void read(Peer& peer) {
    std::byte piece[65536];
    for (;;) {
      const ssize_t n = ::recv(peer.socket, piece, sizeof piece, MSG_DONTWAIT);
      if (n == 0) peer.gone = true;
      if (n <= 0) break;
      peer.in.insert(peer.in.end(), piece, piece + n);
    }
    size_t at = 0;
    for (Head head{}; peer.in.size() - at >= sizeof head; at += sizeof head + size_t(head.bytes)) {
      std::memcpy(&head, peer.in.data() + at, sizeof head);
      if (peer.in.size() - at < sizeof head + size_t(head.bytes)) break;
      Box& box = peer.boxes[int(head.tag)];
      const auto begin = peer.in.begin() + ptrdiff_t(at + sizeof head);
      box.arrived[box.next++].assign(begin, begin + head.bytes);
    }
    peer.in.erase(peer.in.begin(), peer.in.begin() + ptrdiff_t(at));
  }

  class Sent final : public Message {
   public:
    Sent(ProcessLink& link, int to, int64_t position) : link_(link), to_(to), position_(position) {}
    bool done() override {
      link_.pump();
      const Peer& peer = link_.peers_[size_t(to_)];
      if (peer.flushed < position_ && peer.gone) throw Error(text("rank ", to_, " has ended"));
      return peer.flushed >= position_;
    }

   private:
    ProcessLink& link_;
    int to_;
    int64_t position_;
  };

  class Expected final : public Message {
   public:
    Expected(ProcessLink& link, int from, Box& box, int64_t number, std::span<std::byte> bytes)
        : link_(link), from_(from), box_(box), number_(number), bytes_(bytes) {}
    bool done() override {
      link_.pump();
      const auto found = box_.arrived.find(number_);
      if (found == box_.arrived.end()) {
        if (link_.peers_[size_t(from_)].gone) throw Error(text("rank ", from_, " has ended"));
        return false;
      }
      check(found->second.size() == bytes_.size(), "a message of ", found->second.size(), " bytes for one of ",
            bytes_.size());
      std::copy(found->second.begin(), found->second.end(), bytes_.begin());
      box_.arrived.erase(found);
      return true;
    }

   private:
    ProcessLink& link_;
    int from_;
    Box& box_;
    int64_t number_;
    std::span<std::byte> bytes_;
  };

  int rank_;
  std::vector<Peer> peers_;
};

/// Runs body(rank, sockets) in n processes forked from this one, which must have no threads and no GPU in use. Returns
/// their exit codes, 128 + n for a signal; after `seconds` those that are left are killed.
inline std::vector<int> run_on_processes(int n, const std::function<int(int, const std::vector<int>&)>& body,
                                         unsigned seconds) {
  std::vector<std::vector<int>> sockets(size_t(n), std::vector<int>(size_t(n), -1));
  for (size_t a = 0; a < size_t(n); ++a)
    for (size_t b = a + 1; b < size_t(n); ++b) {
      int pair[2];
      check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair: ", std::strerror(errno));
      sockets[a][b] = pair[0];
      sockets[b][a] = pair[1];
    }
  std::vector<pid_t> processes;
  for (int rank = 0; rank < n; ++rank) {
    const pid_t process = fork();
    check(process >= 0, "fork: ", std::strerror(errno));
    if (process == 0) {
      alarm(seconds);
      for (int other = 0; other < n; ++other)
        for (int fd : sockets[size_t(other)])
          if (other != rank && fd >= 0) close(fd);
      std::_Exit(body(rank, sockets[size_t(rank)]));
    }
    processes.push_back(process);
  }
  for (const auto& of_rank : sockets)
    for (int fd : of_rank)
      if (fd >= 0) close(fd);
  std::vector<int> codes;
  for (pid_t process : processes) {
    int status = 0;
    waitpid(process, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return codes;
}

}  // namespace agon::testing
