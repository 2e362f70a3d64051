#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>

namespace agon {

struct StoreOptions {
  std::string host;  ///< of rank 0: a name, or an address of IPv4 or IPv6
  int port = 0;
  int rank = 0, size = 1;
  std::string token;                                              ///< a secret, the same on all ranks; not empty
  std::chrono::milliseconds deadline = std::chrono::seconds(60);  ///< of each call
  std::function<void(const std::string&)> note;                   ///< told, on rank 0, who was turned away and why
};

/// Where ranks that do not know each other yet leave and find a few bytes, such as the id of a communicator. Rank 0
/// serves the others over TCP, while it is in a call of its own: every rank makes its calls without long pauses and
/// ends with barrier(). Errors name host and port, the ranks that are missing, and the seconds waited; one that rank 0
/// meets reaches the other ranks too. The token keeps out strangers and other jobs, not who can read the network.
class Store {
 public:
  virtual ~Store() = default;
  /// UserError when the key has been published, or key and value have more than 64 KiB together.
  virtual void publish(const std::string& key, const std::string& value) = 0;
  /// Waits until somebody has published the key.
  virtual std::string get(const std::string& key) = 0;
  virtual void barrier() = 0;
};

/// Returns when all ranks have come. Who sends rank 0 anything but a greeting with the token, or none for five seconds,
/// is turned away. UserError for what the user got wrong: a host that does not exist or is not rank 0's, another token,
/// size or version than rank 0's, a rank that is there already. Error when the port is taken or ranks do not come.
std::unique_ptr<Store> join_store(const StoreOptions& options);

}  // namespace agon
