#pragma once
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distributed/socket.h"
#include "distributed/store.h"
#include "distributed/store_frame.h"

namespace agon {

/// Rank 0 of a store.
class StoreServer final : public Store {
 public:
  /// Listens; nobody has come yet. A port of 0 takes a free one.
  explicit StoreServer(const StoreOptions& options);
  int port() const { return addresses_.front().port(); }
  /// Waits until all ranks have come; to be called once, before all else.
  void await_ranks();

  void publish(const std::string& key, const std::string& value) override;
  std::string get(const std::string& key) override;
  void barrier() override;

 private:
  struct Peer {
    Descriptor socket;
    std::string address, arrived, leaving;
    Clock::time_point greeting_due;
    int rank = -1;  // until it has greeted
    std::optional<std::string> awaited;
    bool at_barrier = false, closing = false;

    std::string who() const;
  };

  /// Serves until `done`; where the deadline comes first, fails with `late`.
  void serve(const std::function<bool()>& done, const std::function<std::string()>& late);
  void wait_for_something(Clock::time_point deadline);
  void accept_from(const Descriptor& listening);
  void read_from(Peer& peer);
  void answer(Peer& peer, const Frame& frame);
  void greet(Peer& peer, const Frame& frame);
  void send_to(Peer& peer, const Frame& frame);
  void flush(Peer& peer);
  void flush_all(std::chrono::milliseconds patience);
  void linger(std::chrono::milliseconds patience);
  void turn_away(Peer& peer, const std::string& why);
  void turn_away_one_of_too_many();
  void lose(Peer& peer, const std::string& how);
  [[noreturn]] void fail(const std::string& why);
  std::string missing(const std::function<bool(const Peer&)>& there) const;
  void note(const std::string& what);
  bool save(const std::string& key, const std::string& value);

  StoreOptions options_;
  std::string name_;
  std::vector<Address> addresses_;
  std::vector<Descriptor> listening_;
  std::list<Peer> peers_;
  std::map<std::string, std::string> values_;
  int notes_ = 0;
};

}  // namespace agon
