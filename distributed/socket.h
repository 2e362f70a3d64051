#pragma once
#include <sys/socket.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace agon {

using Clock = std::chrono::steady_clock;

/// An open file descriptor, closed at the end.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

/// An address of a machine, and a port.
struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int port() const;
  void set_port(int port);
  /// "127.0.0.1:80", "[::1]:80"
  std::string name() const;
};

/// "host:80", "[::1]:80"
std::string host_and_port(const std::string& host, int port);

/// All TCP addresses of a name or a number of IPv4 or IPv6. UserError, which says how the host was given (`source`, for
/// example "MASTER_ADDR"), where there are none.
std::vector<Address> resolve(const std::string& host, int port, const std::string& source);

/// Sockets that listen on those of the addresses that are this machine's; a port of 0 becomes a free one, the same for
/// all. They do not block. Error when the port is taken; UserError when no address is this machine's.
std::vector<Descriptor> listen_on(std::vector<Address>& addresses, const std::string& name);

/// A connection to the first address that answers; tried again until `deadline` while none does. It does not block.
/// Error with the reason of the last try.
Descriptor connect_to(const std::vector<Address>& addresses, const std::string& name, Clock::time_point deadline);

/// Milliseconds from now, rounded up, for poll(); 0 when it has passed.
int milliseconds_until(Clock::time_point deadline);

/// "5.0", of a time since `start`.
std::string seconds_since(Clock::time_point start);

}  // namespace agon
