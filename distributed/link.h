#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace agon {

/// Messages between the ranks of a world, from one to one. Those of one sender, receiver and tag arrive in the order in
/// which they were sent, at receives in the order in which they were begun. No call waits for another rank. All throw
/// Error naming the other rank when the engine fails.
class Link {
 public:
  /// A message under way. Its memory must be left alone until it is done; one that is destroyed before is given up.
  class Message {
   public:
    virtual ~Message() = default;
    virtual bool done() = 0;  ///< looks, and lets all messages of the link go on
  };
  static constexpr int kTags = 1 << 22;  // tags are 0 ... kTags - 1

  virtual ~Link() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string host() const = 0;  ///< the machine this rank runs on

  virtual std::unique_ptr<Message> send(int to, int tag, std::span<const std::byte> bytes) = 0;
  /// The message has to have exactly the size of `bytes`.
  virtual std::unique_ptr<Message> receive(int from, int tag, std::span<std::byte> bytes) = 0;

  /// A notice is a text outside the order of messages, for a rank that need not be waiting for it: why the job has
  /// failed. Who has told or heard one begins no more messages.
  virtual std::unique_ptr<Message> tell(int to, const std::string& notice) = 0;
  virtual std::optional<std::string> heard() = 0;  ///< a notice that has come

  /// The last call, when all messages are done and all ranks are about to make it, or, not orderly, when the job has
  /// failed and this process is about to exit.
  virtual void end(bool orderly) = 0;
};

}  // namespace agon
