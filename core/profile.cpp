#include "core/profile.h"

#include <chrono>

namespace agon {

namespace {

using Clock = std::chrono::steady_clock;

struct Timing {
  const char* part = "";
  bool on = false;
  Clock::time_point since;
  std::map<std::string, double> seconds;

  /// Books the time since the last change to the part that ran, and makes `next` the running one.
  void change(const char* next) {
    if (on) {
      const auto now = Clock::now();
      seconds[part] += std::chrono::duration<double>(now - since).count();
      since = now;
    }
    part = next;
  }
};
thread_local Timing timing;

}  // namespace

Part::Part(const char* name) : previous_(timing.part) { timing.change(name); }
Part::~Part() { timing.change(previous_); }
const char* Part::current() { return timing.part; }

void start_timing() {
  timing.seconds.clear();
  timing.since = Clock::now();
  timing.on = true;
}

std::map<std::string, double> stop_timing() {
  timing.change(timing.part);
  timing.on = false;
  return std::move(timing.seconds);
}

}  // namespace agon
