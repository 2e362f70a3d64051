#pragma once
#include <functional>
#include <string>

#include "distributed/communicator.h"

namespace agon::testing {

/// Runs body on one rank without threads, and on 1 to 5 ranks that are threads.
inline void on_all_kinds_of_ranks(const std::function<void(Communicator&)>& body) {
  body(*make_self_communicator());
  for (int n = 1; n <= 5; ++n) run_on_threads(n, body);
}

/// What run_on_threads throws again; "" when it does not.
inline std::string failure_of(int n, const std::function<void(Communicator&)>& body,
                              std::chrono::milliseconds deadline = std::chrono::seconds(60)) {
  try {
    run_on_threads(n, body, deadline);
  } catch (const std::exception& e) { return e.what(); }
  return "";
}

/// What f throws; "" when it does not.
inline std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) { return e.what(); }
  return "";
}

}  // namespace agon::testing
