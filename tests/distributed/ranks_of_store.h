#pragma once
#include <doctest/doctest.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/store_server.h"

namespace agon::testing {

inline StoreOptions store_options(int rank, int size, int port, std::chrono::milliseconds deadline) {
  StoreOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.rank = rank;
  options.size = size;
  options.token = "secret";
  options.deadline = deadline;
  return options;
}

/// Rank 0 of a store on a free port, and what it notes.
struct Server {
  std::vector<std::string> notes;
  StoreServer store;

  explicit Server(int size, std::chrono::milliseconds deadline = std::chrono::seconds(20))
      : store([&] {
          StoreOptions options = store_options(0, size, 0, deadline);
          options.note = [this](const std::string& note) { notes.push_back(note); };
          return options;
        }()) {}

  std::string all_notes() const {
    std::string all;
    for (const std::string& note : notes) all += note + '\n';
    return all;
  }
};

/// What each thread's function threw, "" for none, in order; of a UserError "user: ...".
inline std::vector<std::string> run_all(const std::vector<std::function<void()>>& functions) {
  std::vector<std::string> thrown(functions.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < functions.size(); ++i)
    threads.emplace_back([&, i] {
      try {
        functions[i]();
      } catch (const UserError& e) { thrown[i] = std::string("user: ") + e.what(); } catch (const Error& e) {
        thrown[i] = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

}  // namespace agon::testing
