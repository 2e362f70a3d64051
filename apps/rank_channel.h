#pragma once
#include <optional>
#include <string>

#include "distributed/socket.h"

namespace agon {

/// What the supervisor of a job and the keepers of its ranks tell each other.
struct RankMessage {
  enum Kind : int {
    began,   ///< keeper: its rank runs
    ended,   ///< keeper: its rank ended; value: the status of waitpid
    signal,  ///< supervisor: send the rank signal `value`
    leave,   ///< supervisor: the rank has ended, now end too
  };
  Kind kind = began;
  int rank = 0, value = 0;
};

/// A socket on a file, for keepers to come to.
Descriptor listen_for_keepers(const std::string& path);
/// The supervisor's side of the next keeper that came, with which it sends its own standard output and error; none when
/// none is waiting.
Descriptor take_keeper(const Descriptor& listening);

/// A connection to the supervisor, and the standard output and error it gave.
struct ToSupervisor {
  Descriptor socket, output, error;
};
/// Error naming the path when nobody is there.
ToSupervisor come_to_supervisor(const std::string& path);

/// False when the other side has gone.
bool send_message(const Descriptor& to, const RankMessage& message);
/// Waits for a message; none when the other side has gone.
std::optional<RankMessage> receive_message(const Descriptor& from);

}  // namespace agon
