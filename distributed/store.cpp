#include "distributed/store.h"

#include <poll.h>

#include <cerrno>
#include <cstring>

#include "distributed/socket.h"
#include "distributed/store_frame.h"
#include "distributed/store_server.h"

namespace agon {

namespace {

/// So much later than rank 0 the others give up, whose message knows more.
constexpr auto kAfterRankZero = std::chrono::seconds(1);

class StoreClient final : public Store {
 public:
  explicit StoreClient(const StoreOptions& options)
      : options_(options), name_("rendezvous at " + host_and_port(options.host, options.port)) {
    const auto deadline = Clock::now() + options_.deadline;
    socket_ = connect_to(resolve(options_.host, options_.port, "MASTER_ADDR"), name_, deadline);
    ask({Say::hello, options_.token, hello_value(options_.rank, options_.size)}, Say::welcome,
        "rank 0 is there, but not all ranks have come");
  }

  void publish(const std::string& key, const std::string& value) override {
    ask({Say::publish, key, value}, Say::done, "rank 0 did not take '" + printable(key) + "'");
  }
  std::string get(const std::string& key) override {
    return ask({Say::get, key, {}}, Say::done, "nobody has published '" + printable(key) + "'");
  }
  void barrier() override { ask({Say::barrier, {}, {}}, Say::done, "not all ranks have reached the barrier"); }

 private:
  std::string ask(const Frame& frame, Say expected, const std::string& late) {
    const auto start = Clock::now(), deadline = start + options_.deadline + kAfterRankZero;
    std::string leaving = encode(frame);
    while (true) {
      if (std::optional<Frame> reply = received()) {
        require(reply->kind != Say::refused, reply->value);
        if (reply->kind == Say::failed) throw Error(reply->value);
        check(reply->kind == expected, name_, ": rank 0 gave an answer to something else");
        return std::move(reply->value);
      }
      if (Clock::now() >= deadline) throw Error(name_ + ": " + late + " after " + seconds_since(start) + " s");
      pollfd wanted{socket_.get(), short(leaving.empty() ? POLLIN : POLLIN | POLLOUT), 0};
      if (poll(&wanted, 1, milliseconds_until(deadline)) <= 0) continue;
      if (wanted.revents & POLLOUT) {
        const ssize_t n = send(socket_.get(), leaving.data(), leaving.size(), MSG_NOSIGNAL);
        if (n > 0) leaving.erase(0, size_t(n));
      }
      if (wanted.revents & ~POLLOUT) receive();
    }
  }

  void receive() {
    char bytes[16 * 1024];
    const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0)
      throw Error(name_ + ": rank 0 is lost: " + (n == 0 ? "it has closed the connection" : std::strerror(errno)));
    arrived_.append(bytes, size_t(n));
  }

  std::optional<Frame> received() try { return take_frame(arrived_); } catch (const BadFrame& e) {
    throw Error(name_ + ": what answers there is not rank 0 of this job: " + e.what());
  }

  StoreOptions options_;
  std::string name_, arrived_;
  Descriptor socket_;
};

}  // namespace

std::unique_ptr<Store> join_store(const StoreOptions& options) {
  require(!options.token.empty(), "AGON_TOKEN is not set; expected a secret, the same for all ranks of the job");
  require(options.token.size() <= kStoreCap / 2, "AGON_TOKEN has ", options.token.size(), " bytes; expected at most ",
          kStoreCap / 2);
  check(options.rank >= 0 && options.rank < options.size, "rank ", options.rank, " of ", options.size);
  if (options.rank > 0) return std::make_unique<StoreClient>(options);
  auto server = std::make_unique<StoreServer>(options);
  server->await_ranks();
  return server;
}

}  // namespace agon
