#include "apps/rank_channel.h"

#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace agon {

namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  check(path.size() < sizeof address.sun_path, path, ": too long for a socket; expected less than ",
        sizeof address.sun_path, " bytes");
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

Descriptor new_socket(int flags = 0) {
  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  check(bool(socket), "cannot open a socket: ", std::strerror(errno));
  return socket;
}

/// The message that carries descriptors: one byte, and two of them.
struct Carrier {
  Carrier() {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
  }
  Carrier(const Carrier&) = delete;  // it points into itself
  Carrier& operator=(const Carrier&) = delete;

  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message{};
};

}  // namespace

Descriptor listen_for_keepers(const std::string& path) {
  Descriptor socket = new_socket(SOCK_NONBLOCK);
  const sockaddr_un address = address_of(path);
  check(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
            listen(socket.get(), 1024) == 0,
        path, ": ", std::strerror(errno));
  return socket;
}

Descriptor take_keeper(const Descriptor& listening) {
  Descriptor socket(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return socket;
  const int given[2] = {STDOUT_FILENO, STDERR_FILENO};
  Carrier carrier;
  cmsghdr* header = CMSG_FIRSTHDR(&carrier.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof given);
  std::memcpy(CMSG_DATA(header), given, sizeof given);
  sendmsg(socket.get(), &carrier.message, MSG_NOSIGNAL);
  return socket;
}

ToSupervisor come_to_supervisor(const std::string& path) {
  ToSupervisor to;
  to.socket = new_socket();
  const sockaddr_un address = address_of(path);
  check(connect(to.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, path, ": ",
        std::strerror(errno));
  Carrier carrier;
  ssize_t n;
  while ((n = recvmsg(to.socket.get(), &carrier.message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) continue;
  const cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&carrier.message) : nullptr;
  check(header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(2 * sizeof(int)), path,
        ": the launcher has gone");
  int given[2];
  std::memcpy(given, CMSG_DATA(header), sizeof given);
  to.output = Descriptor(given[0]);
  to.error = Descriptor(given[1]);
  return to;
}

bool send_message(const Descriptor& to, const RankMessage& message) {
  ssize_t n;
  while ((n = send(to.get(), &message, sizeof message, MSG_NOSIGNAL)) < 0 && errno == EINTR) continue;
  return n == ssize_t(sizeof message);
}

std::optional<RankMessage> receive_message(const Descriptor& from) {
  RankMessage message;
  ssize_t n;
  while ((n = recv(from.get(), &message, sizeof message, 0)) < 0 && errno == EINTR) continue;
  if (n != ssize_t(sizeof message)) return {};
  return message;
}

}  // namespace agon
