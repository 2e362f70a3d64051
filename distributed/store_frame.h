#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "core/error.h"

namespace agon {

/// What the ranks of a store say to each other.
enum class Say : uint32_t {
  hello,    ///< a rank comes: the token, and hello_value
  welcome,  ///< all have come
  publish,  ///< key, value
  get,      ///< key
  barrier,  ///< this rank has reached it
  done,     ///< the answer to publish, get (with the value) and barrier
  refused,  ///< the value says why: the user's mistake
  failed,   ///< the value says why the rendezvous has ended
};

struct Frame {
  Say kind = Say::hello;
  std::string key, value;
};

/// A message is five numbers of 32 bits, lowest byte first: "agon", the version, the kind, the bytes of key and of
/// value; then these.
constexpr uint32_t kStoreVersion = 1;
constexpr size_t kStoreCap = 64 * 1024;  ///< bytes of key and value together

/// Not a message of ours.
struct BadFrame : Error {
  using Error::Error;
};
/// A message of another version of this program.
struct OtherVersion : BadFrame {
  using BadFrame::BadFrame;
};

/// UserError when key and value exceed the cap.
std::string encode(const Frame& frame);

/// Removes the first message from what has arrived; none while it is incomplete. BadFrame as soon as what is there
/// cannot become a message: another beginning, version or kind, or sizes above the cap.
std::optional<Frame> take_frame(std::string& arrived);

/// Rank and size as the value of a hello.
std::string hello_value(int rank, int size);
struct RankAndSize {
  uint32_t rank = 0, size = 0;
};
/// BadFrame when it has another length.
RankAndSize read_hello(const std::string& value);

/// Whether two secrets are equal, in a time that does not depend on where they differ.
bool same_secret(const std::string& given, const std::string& expected);

/// The beginning of something that is not ours, for a message: "GET / HTTP/1.1..", with other bytes as dots.
std::string printable(const std::string& bytes);

}  // namespace agon
