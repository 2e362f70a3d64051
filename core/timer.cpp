#include "core/timer.h"

#include <chrono>

namespace agon {

using Clock = std::chrono::steady_clock;

void MarkTime::cpu(std::shared_ptr<void>& mark) {
  if (!mark) mark = std::make_shared<Clock::time_point>();
  *static_cast<Clock::time_point*>(mark.get()) = Clock::now();
}

void TimeBetween::cpu(double& seconds, const std::shared_ptr<void>& from, const std::shared_ptr<void>& to) {
  seconds = std::chrono::duration<double>(*static_cast<const Clock::time_point*>(to.get()) -
                                          *static_cast<const Clock::time_point*>(from.get()))
                .count();
}

void Timer::start() { run<MarkTime>(device_, from_); }

double Timer::stop() {
  check(from_, "a timer is stopped that was never started");
  run<MarkTime>(device_, to_);
  double seconds = 0;
  run<TimeBetween>(device_, seconds, from_, to_);
  return seconds;
}

}  // namespace agon
