#include "distributed/store_server.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace agon {

namespace {

constexpr auto kGreeting = std::chrono::seconds(5);  // to be complete after connecting
constexpr auto kFarewell = std::chrono::seconds(1);  // for last words to those who listen
constexpr size_t kStrangers = 64;                    // connections without a greeting at a time
constexpr int kNotes = 20;

}  // namespace

std::string StoreServer::Peer::who() const { return rank < 0 ? address : text("rank ", rank, " (", address, ')'); }

StoreServer::StoreServer(const StoreOptions& options) : options_(options) {
  addresses_ = resolve(options_.host, options_.port, "MASTER_ADDR");
  listening_ = listen_on(addresses_, host_and_port(options_.host, options_.port));
  name_ = "rendezvous at " + host_and_port(options_.host, port());
}

void StoreServer::await_ranks() {
  const auto come = [](const Peer& p) { return p.rank > 0; };
  serve([&] { return std::ranges::count_if(peers_, come) == options_.size - 1; },
        [&] { return missing(come) + " did not come"; });
  listening_.clear();
  for (Peer& peer : peers_)
    if (!come(peer)) turn_away(peer, "the job is complete");
  std::erase_if(peers_, [](const Peer& p) { return p.closing; });
  for (Peer& peer : peers_) send_to(peer, {Say::welcome, {}, {}});
}

bool StoreServer::save(const std::string& key, const std::string& value) {
  if (!values_.emplace(key, value).second) return false;
  for (Peer& peer : peers_)
    if (peer.awaited == key) {
      peer.awaited.reset();
      send_to(peer, {Say::done, {}, value});
    }
  return true;
}

void StoreServer::publish(const std::string& key, const std::string& value) {
  encode({Say::publish, key, value});  // checks the size
  require(save(key, value), name_, ": '", printable(key), "' has been published before");
}

std::string StoreServer::get(const std::string& key) {
  serve([&] { return values_.contains(key); }, [&] { return "nobody has published '" + printable(key) + "'"; });
  return values_.at(key);
}

void StoreServer::barrier() {
  serve([&] { return std::ranges::all_of(peers_, &Peer::at_barrier); },
        [&] { return missing(&Peer::at_barrier) + " did not reach the barrier"; });
  for (Peer& peer : peers_) {
    peer.at_barrier = false;
    send_to(peer, {Say::done, {}, {}});
  }
  flush_all(kFarewell);
}

void StoreServer::serve(const std::function<bool()>& done, const std::function<std::string()>& late) {
  const auto start = Clock::now(), deadline = start + options_.deadline;
  while (!done()) {
    if (Clock::now() >= deadline) fail(late() + " in " + seconds_since(start) + " s");
    wait_for_something(deadline);
    std::erase_if(peers_, [](const Peer& p) { return p.closing; });
  }
}

void StoreServer::wait_for_something(Clock::time_point deadline) {
  std::vector<pollfd> wanted;
  wanted.reserve(listening_.size() + peers_.size());
  for (const Descriptor& socket : listening_) wanted.push_back({socket.get(), POLLIN, 0});
  for (const Peer& peer : peers_) {
    wanted.push_back({peer.socket.get(), short(peer.leaving.empty() ? POLLIN : POLLIN | POLLOUT), 0});
    if (peer.rank < 0) deadline = std::min(deadline, peer.greeting_due);
  }
  if (poll(wanted.data(), wanted.size(), milliseconds_until(deadline)) < 0) return;  // interrupted
  auto ready = wanted.begin() + ptrdiff_t(listening_.size());
  for (Peer& peer : peers_) {
    if (ready->revents & POLLOUT) flush(peer);
    if (ready->revents & ~POLLOUT) read_from(peer);
    ++ready;
    if (peer.rank < 0 && !peer.closing && Clock::now() >= peer.greeting_due)
      turn_away(peer, text("it did not greet within ", kGreeting.count(), " s"));
  }
  for (size_t i = 0; i < listening_.size(); ++i)
    if (wanted[i].revents) accept_from(listening_[i]);
}

void StoreServer::accept_from(const Descriptor& listening) {
  Address from;
  from.size = sizeof from.storage;
  Peer peer;
  peer.socket = Descriptor(
      accept4(listening.get(), reinterpret_cast<sockaddr*>(&from.storage), &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const int code = errno;
  if (!peer.socket) {
    if (code != EMFILE && code != ENFILE) return;
    if (std::ranges::none_of(peers_, [](const Peer& p) { return p.rank < 0 && !p.closing; }))
      fail(text("cannot accept a connection: ", std::strerror(code)));
    turn_away_one_of_too_many();
    return;
  }
  peer.address = from.name();
  peer.greeting_due = Clock::now() + kGreeting;
  peers_.push_back(std::move(peer));
  if (size_t(std::ranges::count_if(peers_, [](const Peer& p) { return p.rank < 0; })) > kStrangers)
    turn_away_one_of_too_many();
}

void StoreServer::turn_away_one_of_too_many() {
  const auto oldest = std::ranges::find_if(peers_, [](const Peer& p) { return p.rank < 0 && !p.closing; });
  turn_away(*oldest, "it did not greet, and too many others wait to");
  peers_.erase(oldest);
}

void StoreServer::read_from(Peer& peer) {
  char bytes[16 * 1024];
  const ssize_t n = recv(peer.socket.get(), bytes, sizeof bytes, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    lose(peer, n == 0 ? "it has closed the connection" : std::strerror(errno));
    return;
  }
  peer.arrived.append(bytes, size_t(n));
  try {
    while (!peer.closing) {
      const std::optional<Frame> frame = take_frame(peer.arrived);
      if (!frame) break;
      answer(peer, *frame);
    }
  } catch (const OtherVersion& e) {
    send_to(peer, {Say::refused, {}, text("rank 0 says: ", e.what())});
    lose(peer, e.what());
  } catch (const BadFrame& e) { lose(peer, e.what()); }
}

void StoreServer::answer(Peer& peer, const Frame& frame) {
  if (peer.rank < 0) return greet(peer, frame);
  switch (frame.kind) {
    case Say::publish:
      if (save(frame.key, frame.value)) return send_to(peer, {Say::done, {}, {}});
      return send_to(peer, {Say::refused, {}, text(name_, ": '", printable(frame.key), "' has been published before")});
    case Say::get:
      if (const auto found = values_.find(frame.key); found != values_.end())
        return send_to(peer, {Say::done, {}, found->second});
      peer.awaited = frame.key;
      return;
    case Say::barrier:
      peer.at_barrier = true;
      return;
    default:
      throw BadFrame("it sent a message that only rank 0 sends");
  }
}

void StoreServer::greet(Peer& peer, const Frame& frame) {
  if (frame.kind != Say::hello) throw BadFrame("it did not begin with a greeting");
  const auto refuse = [&](const std::string& why) {
    send_to(peer, {Say::refused, {}, name_ + ": " + why});
    turn_away(peer, why);
  };
  // Whoever lacks the token learns nothing else.
  if (!same_secret(frame.key, options_.token))
    return refuse("the token is not rank 0's; expected the same AGON_TOKEN on all ranks");
  const RankAndSize who = read_hello(frame.value);
  if (who.size != uint32_t(options_.size))
    return refuse(text("rank ", who.rank, " expects ", who.size, " ranks, rank 0 ", options_.size));
  if (who.rank == 0 || who.rank >= who.size)
    return refuse(text("a second rank ", who.rank, " of ", who.size, " has come"));
  for (const Peer& other : peers_)
    if (other.rank == int(who.rank) && !other.closing) return refuse("there are two of " + other.who());
  peer.rank = int(who.rank);
}

void StoreServer::send_to(Peer& peer, const Frame& frame) {
  peer.leaving += encode(frame);
  flush(peer);
}

void StoreServer::flush(Peer& peer) {
  const ssize_t n = send(peer.socket.get(), peer.leaving.data(), peer.leaving.size(), MSG_NOSIGNAL);
  if (n > 0) peer.leaving.erase(0, size_t(n));
  if (n < 0 && errno != EAGAIN && errno != EINTR) peer.leaving.clear();  // reading will say that it has gone
}

void StoreServer::flush_all(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (Clock::now() < deadline) {
    std::vector<pollfd> wanted;
    for (const Peer& peer : peers_)
      if (!peer.leaving.empty()) wanted.push_back({peer.socket.get(), POLLOUT, 0});
    if (wanted.empty()) return;
    poll(wanted.data(), wanted.size(), milliseconds_until(deadline));
    for (Peer& peer : peers_)
      if (!peer.leaving.empty()) flush(peer);
  }
}

void StoreServer::lose(Peer& peer, const std::string& how) {
  if (peer.rank >= 0) {
    peer.closing = true;
    fail(peer.who() + " is lost: " + how);
  }
  turn_away(peer, how);
}

void StoreServer::turn_away(Peer& peer, const std::string& why) {
  peer.closing = true;
  note("turned away " + peer.who() + ": " + why);
}

void StoreServer::fail(const std::string& why) {
  const std::string message = name_ + ": " + why;
  for (Peer& peer : peers_)
    if (peer.rank >= 0 && !peer.closing) send_to(peer, {Say::failed, {}, message});
  flush_all(kFarewell);
  linger(kFarewell);
  peers_.clear();
  listening_.clear();
  throw Error(message);
}

/// Closing a connection on which something has arrived unread would take back what was sent last.
void StoreServer::linger(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  std::erase_if(peers_, [](const Peer& p) { return p.rank < 0 || p.closing; });
  for (const Peer& peer : peers_) shutdown(peer.socket.get(), SHUT_WR);
  while (!peers_.empty() && Clock::now() < deadline) {
    std::vector<pollfd> wanted;
    for (const Peer& peer : peers_) wanted.push_back({peer.socket.get(), POLLIN, 0});
    poll(wanted.data(), wanted.size(), milliseconds_until(deadline));
    std::erase_if(peers_, [](const Peer& p) {
      char bytes[4096];
      const ssize_t n = recv(p.socket.get(), bytes, sizeof bytes, 0);
      return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    });
  }
}

std::string StoreServer::missing(const std::function<bool(const Peer&)>& there) const {
  std::vector<bool> found(size_t(options_.size));
  for (const Peer& peer : peers_)
    if (peer.rank > 0 && there(peer)) found[size_t(peer.rank)] = true;
  std::string ranks;
  for (int rank = 1; rank < options_.size; ++rank)
    if (!found[size_t(rank)]) ranks += text(ranks.empty() ? "rank " : ", ", rank);
  return text(ranks, " of ", options_.size);
}

void StoreServer::note(const std::string& what) {
  if (!options_.note || notes_ > kNotes) return;
  options_.note(name_ + ": " + (++notes_ > kNotes ? "turned away more; not all are listed" : what));
}

}  // namespace agon
