#include "distributed/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "distributed/host.h"

namespace agon {

namespace {

constexpr auto kBetweenTries = std::chrono::milliseconds(50);
constexpr auto kPerTry = std::chrono::seconds(3);

std::string reason(int code) { return std::strerror(code); }

/// None where the machine lacks the family: one without IPv6 may still have such a name for its loopback.
Descriptor open_socket(const Address& address) {
  return Descriptor(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

void set(const Descriptor& socket, int level, int option) {
  const int on = 1;
  setsockopt(socket.get(), level, option, &on, sizeof on);
}

/// Connects, or says why not.
int try_to_connect(const Descriptor& socket, const Address& address, Clock::time_point deadline) {
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  const auto last = std::min(deadline, Clock::now() + kPerTry);
  pollfd poll_for{socket.get(), POLLOUT, 0};
  while (poll(&poll_for, 1, milliseconds_until(last)) <= 0)
    if (Clock::now() >= last) return ETIMEDOUT;
  int code = 0;
  socklen_t size = sizeof code;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &size) != 0) code = errno;
  return code;
}

/// A connection from a port to itself, which Linux makes when nobody listens on a free port of its own range.
bool to_itself(const Descriptor& socket) {
  Address here, there;
  here.size = there.size = sizeof here.storage;
  return getsockname(socket.get(), reinterpret_cast<sockaddr*>(&here.storage), &here.size) == 0 &&
         getpeername(socket.get(), reinterpret_cast<sockaddr*>(&there.storage), &there.size) == 0 &&
         here.name() == there.name();
}

}  // namespace

void Descriptor::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int Address::port() const {
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(storage).sin_port);
}

void Address::set_port(int port) {
  (storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port
                                 : reinterpret_cast<sockaddr_in&>(storage).sin_port) = htons(uint16_t(port));
}

std::string Address::name() const {
  char host[NI_MAXHOST] = "?";
  getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return host_and_port(host, port());
}

std::string host_and_port(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? text(host, ':', port) : text('[', host, "]:", port);
}

std::vector<Address> resolve(const std::string& host, int port, const std::string& source) {
  addrinfo wanted{}, *found = nullptr;
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  const int code = getaddrinfo(host.c_str(), nullptr, &wanted, &found);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, [](addrinfo* a) {
    if (a) freeaddrinfo(a);
  });
  require(code == 0, source, "='", host, "': ", gai_strerror(code), "; expected a host's name or address");
  std::vector<Address> addresses;
  for (const addrinfo* a = found; a; a = a->ai_next) {
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    Address address;
    std::memcpy(&address.storage, a->ai_addr, a->ai_addrlen);
    address.size = a->ai_addrlen;
    address.set_port(port);
    addresses.push_back(address);
  }
  require(!addresses.empty(), source, "='", host, "': it has neither an IPv4 nor an IPv6 address");
  return addresses;
}

std::vector<Descriptor> listen_on(std::vector<Address>& addresses, const std::string& name) {
  std::vector<Descriptor> listening;
  int last = 0;
  for (Address& address : addresses) {
    if (!listening.empty()) address.set_port(addresses.front().port());
    Descriptor socket = open_socket(address);
    last = errno;
    if (!socket) continue;
    set(socket, SOL_SOCKET, SO_REUSEADDR);
    if (address.storage.ss_family == AF_INET6) set(socket, IPPROTO_IPV6, IPV6_V6ONLY);
    if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
        listen(socket.get(), 128) != 0) {
      last = errno;
      check(last != EADDRINUSE, name, ": the port is taken by another program; choose another (MASTER_PORT)");
      check(last != EACCES, name, ": no permission to use this port; choose another (MASTER_PORT)");
      continue;
    }
    socklen_t size = sizeof address.storage;
    getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address.storage), &size);
    addresses[listening.size()] = address;
    listening.push_back(std::move(socket));
  }
  require(!listening.empty(), name, " cannot be listened on by this machine (", this_host(), "): ", reason(last),
          "; expected an address of the machine that rank 0 runs on (MASTER_ADDR)");
  addresses.resize(listening.size());
  return listening;
}

Descriptor connect_to(const std::vector<Address>& addresses, const std::string& name, Clock::time_point deadline) {
  const auto start = Clock::now();
  int last = ETIMEDOUT;
  while (true) {
    for (const Address& address : addresses) {
      Descriptor socket = open_socket(address);
      last = errno;
      if (!socket) continue;
      last = try_to_connect(socket, address, deadline);
      if (last == 0 && to_itself(socket)) last = ECONNREFUSED;
      if (last != 0) continue;
      set(socket, IPPROTO_TCP, TCP_NODELAY);
      return socket;
    }
    check(Clock::now() + kBetweenTries < deadline, name, ": nobody answered in ", seconds_since(start), " s (",
          reason(last), ")");
    poll(nullptr, 0, int(kBetweenTries.count()));
  }
}

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return int(std::clamp<int64_t>(left, 0, 1 << 30));
}

std::string seconds_since(Clock::time_point start) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", std::chrono::duration<double>(Clock::now() - start).count());
  return text;
}

}  // namespace agon
