#pragma once
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/make.h"
#include "distributed/messages.h"
#include "tests/support/thread_link.h"

namespace agon::testing {

using Body = std::function<void(Communicator&)>;

/// As run_on_threads, on ranks that exchange messages; up to `delay` times one is overlooked.
inline void run_on_links(int n, const Body& body, CommunicatorOptions options = {}, int delay = 0) {
  const auto office = std::make_shared<PostOffice>(n, delay);
  std::exception_ptr first;
  std::mutex mutex;
  const auto run_rank = [&](int rank) {
    std::unique_ptr<Communicator> comm;
    try {
      comm = make_message_communicator(std::make_unique<ThreadLink>(office, rank), options);
      body(*comm);
    } catch (...) {
      std::string reason = "an exception of unknown type";
      {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      try {
        throw;
      } catch (const std::exception& e) { reason = e.what(); } catch (...) {
      }
      if (comm) comm->abort(reason);
    }
  };
  std::vector<std::jthread> threads;
  for (int r = 0; r < n; ++r) threads.emplace_back(run_rank, r);
  threads.clear();
  if (first) std::rethrow_exception(first);
}

/// A way to run n ranks at once that ends when one of them fails.
using Run = std::function<void(int n, const Body&, std::chrono::milliseconds deadline)>;
inline const std::vector<Run>& kinds_of_ranks() {
  static const std::vector<Run> kinds = {
      [](int n, const Body& body, std::chrono::milliseconds deadline) { run_on_threads(n, body, deadline); },
      [](int n, const Body& body, std::chrono::milliseconds deadline) {
        run_on_links(n, body, {.deadline = deadline});
      },
      [](int n, const Body& body, std::chrono::milliseconds deadline) {
        run_on_links(n, body, {.deadline = deadline}, 5);
      },
  };
  return kinds;
}

/// Where mpirun has started this test program several times: all of them.
inline Communicator* ranks_of_mpi() {
  static const std::unique_ptr<Communicator> all =
      std::getenv("OMPI_COMM_WORLD_SIZE") ? make_communicator("mpi", {}) : nullptr;
  return all.get();
}

/// Runs body on n ranks of every kind; under mpirun on n of its ranks, if there are so many.
inline void on_every_kind(int n, const Body& body) {
  if (Communicator* const all = ranks_of_mpi()) {
    if (n > all->size()) return;
    const auto part = all->split(all->rank() < n ? 0 : 1, all->rank());
    if (all->rank() < n) body(*part);
  } else {
    for (const Run& run : kinds_of_ranks()) run(n, body, std::chrono::seconds(60));
  }
}

/// Runs body on one rank without threads, and on 1 to 5 ranks of every kind.
inline void on_all_kinds_of_ranks(const Body& body) {
  body(*make_self_communicator());
  for (int n = 1; n <= 5; ++n) on_every_kind(n, body);
}

/// What f throws; "" when it does not.
inline std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) { return e.what(); }
  return "";
}

/// What run_on_threads, or another way to run ranks, throws again; "" when it does not.
inline std::string failure_of(int n, const Body& body, std::chrono::milliseconds deadline = std::chrono::seconds(60),
                              const Run& run = kinds_of_ranks()[0]) {
  return message_of([&] { run(n, body, deadline); });
}

}  // namespace agon::testing
