#include "distributed/wait_reporter.h"

#include <iostream>
#include <optional>

#include "core/error.h"
#include "distributed/names.h"

namespace agon {

namespace {

constexpr std::chrono::milliseconds kBetweenLooks{50}, kBeforeSayingSo{400};

}  // namespace

WaitReporter::WaitReporter(std::function<bool()> asked_to_stop)
    : asked_to_stop_(std::move(asked_to_stop)), thread_([this] { watch(); }) {}

WaitReporter::~WaitReporter() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  over_.notify_all();
  thread_.join();
}

void WaitReporter::waits(Clock::time_point start, const std::string& where, const std::string& for_whom) {
  const std::lock_guard lock(mutex_);
  start_ = start;
  where_ = where;
  for_whom_ = for_whom;
}

void WaitReporter::waits_no_more() {
  const std::lock_guard lock(mutex_);
  where_.clear();
}

void WaitReporter::watch() {
  std::optional<Clock::time_point> asked;
  std::unique_lock lock(mutex_);
  while (!over_.wait_for(lock, kBetweenLooks, [this] { return ends_; })) {
    const Clock::time_point now = Clock::now();
    if (!asked && asked_to_stop_()) asked = now;
    if (!asked || where_.empty() || now - std::max(*asked, start_) < kBeforeSayingSo) continue;
    const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(now - start_);
    std::cerr << text("agon: asked to stop, but ", where_, " has waited ", duration(waited), " for ", for_whom_, '\n');
    return;
  }
}

}  // namespace agon
