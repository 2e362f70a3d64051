#include "distributed/nccl_world.h"

#include <algorithm>

#include "core/gpu.h"
#include "core/timer.h"
#include "distributed/names.h"
#include "distributed/nccl_open.h"

namespace agon {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kKept = 16;  // calls that have ended and are kept for the record

[[noreturn]] void refuse(const std::string& what, const std::string& failure) {
  throw Error(text(what, " failed: ", failure));
}

bool well(int code) { return code == NcclLibrary::success || code == NcclLibrary::in_progress; }

std::chrono::milliseconds since(Clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - t);
}

}  // namespace

NcclWorld::NcclWorld(const NcclLibrary& library, Device device, std::chrono::milliseconds deadline)
    : library_(library), device_(device), deadline_(deadline), watch_([this] { patrol(); }) {}

NcclWorld::~NcclWorld() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  watch_.join();
}

void NcclWorld::at_step(int64_t step) {
  const std::lock_guard lock(mutex_);
  step_ = step;
}

int64_t NcclWorld::step() {
  const std::lock_guard lock(mutex_);
  return step_;
}

void* NcclWorld::open(const std::string& what, void* whole, const std::function<int(void**)>& make) {
  std::unique_lock lock(mutex_);
  if (!failure_.empty()) refuse(what, failure_);
  void*& made = made_.emplace_back(nullptr);
  int code = make(&made);
  // The part of a split exists when the whole is no longer in progress (NCCL issue 1472).
  if (whole) wait_for(whole, what, code, lock);
  if (whole || code == NcclLibrary::success) code = NcclLibrary::in_progress;  // of what was made
  if (!made) wait_for(nullptr, what, well(code) ? NcclLibrary::internal_error : code, lock);
  communicators_.push_back(made);
  wait_for(made, what, code, lock);
  return made;
}

void NcclWorld::close(void* communicator, bool abandoned) {
  std::unique_lock lock(mutex_);
  const auto found = std::ranges::find(communicators_, communicator);
  if (found == communicators_.end()) return;  // aborted
  communicators_.erase(found);
  if (!abandoned && well(library_.finalize(communicator))) {
    const auto begin = Clock::now();
    int code = NcclLibrary::in_progress;
    while (library_.state(communicator, &code) == NcclLibrary::success && code == NcclLibrary::in_progress &&
           since(begin) < deadline_) {
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      lock.lock();
    }
    if (code == NcclLibrary::success) {
      library_.destroy(communicator);
      return;
    }
  }
  library_.abort(communicator);
}

void NcclWorld::put(void* communicator, const std::string& what, const std::function<int()>& call) {
  std::unique_lock lock(mutex_);
  if (!failure_.empty()) refuse(what, failure_);
  wait_for(communicator, what, call(), lock);
}

void NcclWorld::wait_for(void* communicator, const std::string& what, int code, std::unique_lock<std::mutex>& lock) {
  const auto begin = Clock::now();
  for (int round = 0; code == NcclLibrary::in_progress; ++round) {
    if (const int asked = library_.state(communicator, &code); !well(asked)) code = asked;
    if (code != NcclLibrary::in_progress) break;
    if (since(begin) > deadline_)
      fail_locked(text(what, " did not get ready within ", duration(deadline_),
                       ": a rank did not make the same call, hangs or cannot be reached"));
    lock.unlock();
    if (round < 100)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    lock.lock();
    if (!failure_.empty()) refuse(what, failure_);
  }
  if (code == NcclLibrary::success) return;
  fail_locked(text(what, ": ", explain_nccl(library_, code, communicator)));
  refuse(what, failure_);
}

void NcclWorld::watch(Flight flight) {
  const std::lock_guard lock(mutex_);
  flight.step = step_;
  flights_.push_back(std::move(flight));
  for (size_t i = 0; flights_.size() > kKept && i < flights_.size(); ++i) {
    if (flights_.front().state != Flight::ended) break;
    flights_.pop_front();
  }
}

void NcclWorld::forget(const std::map<Collective, Traffic>& of_group) {
  const std::lock_guard lock(mutex_);
  for (Flight& f : flights_)
    for (const auto& [operation, moved] : of_group)
      if (f.seconds == &moved) f.seconds = nullptr;
}

Lane::Mark NcclWorld::spare_mark() {
  const std::lock_guard lock(mutex_);
  const auto free = std::ranges::find_if(spare_, [](const Lane::Mark& m) { return m.use_count() == 1; });
  if (free == spare_.end()) return {};
  std::swap(*free, spare_.back());
  Lane::Mark mark = std::move(spare_.back());
  spare_.pop_back();
  return mark;
}

void NcclWorld::settle(const std::string& what) {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.empty()) refuse(what, failure_);
      look();
      if (!failure_.empty()) refuse(what, failure_);
      if (std::ranges::all_of(flights_, [](const Flight& f) { return f.state == Flight::ended; })) return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

std::string NcclWorld::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void NcclWorld::fail(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  fail_locked(reason);
}

std::map<Collective, Traffic> NcclWorld::measured(const std::map<Collective, Traffic>& of_group) {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) look();
  return of_group;
}

void NcclWorld::fail_locked(const std::string& reason) {
  if (!failure_.empty()) return;
  failure_ = (reason.empty() ? "no reason given" : reason) + record();
  for (void* c : communicators_) library_.abort(c);
  communicators_.clear();
}

std::string NcclWorld::record() const {
  if (flights_.empty()) return "";
  std::string lines = "\nthe last calls on this rank's GPU:";
  // Around the oldest that has not ended.
  const auto open = std::ranges::find_if(flights_, [](const Flight& f) { return f.state != Flight::ended; });
  const size_t first =
      std::min(size_t(open - flights_.begin()), flights_.size() - std::min(flights_.size(), kKept / 2));
  for (size_t i = first - std::min(first, kKept / 2); i < std::min(flights_.size(), first + kKept / 2); ++i) {
    const Flight& f = flights_[i];
    lines += text("\n  call ", f.number, " of ", f.group, ", ", f.what, ", ", f.bytes, " bytes",
                  f.step ? text(", step ", f.step) : "", ": ");
    lines += f.state == Flight::queued  ? "waits for what this GPU had to do before"
             : f.state == Flight::begun ? "under way for " + duration(since(f.at))
                                        : text("ended, took ", f.took * 1e3, " ms");
  }
  return lines;
}

void NcclWorld::end(Flight& f) {
  run<TimeBetween>(device_, f.took, f.ready, f.done);
  f.state = Flight::ended;
  if (f.seconds) f.seconds->seconds += f.took;
  f.seconds = nullptr;
  for (Lane::Mark* mark : {&f.ready, &f.done}) spare_.push_back(std::move(*mark));
}

/// Notes what has begun and ended, and fails where something should have.
void NcclWorld::look() {
  try {
    for (Flight& f : flights_) {
      if (f.state == Flight::queued && Lane::reached(device_, f.ready)) {
        f.state = Flight::begun;
        f.at = Clock::now();
      }
      if (f.state == Flight::begun && Lane::reached(device_, f.done)) end(f);
      if (f.state == Flight::begun && since(f.at) > deadline_)
        return fail_locked(text("call ", f.number, " of ", f.group, ", ", f.what, ", ", f.bytes, " bytes",
                                f.step ? text(", step ", f.step) : "", ", has not ended ", duration(deadline_),
                                " after it began on the GPU: a rank did not make the same call, hangs or cannot be "
                                "reached"));
    }
  } catch (const Error& e) { return fail_locked(text("the GPU failed: ", e.what())); }
  for (void* c : communicators_) {
    int code = NcclLibrary::success;
    if (const int asked = library_.state(c, &code); !well(asked)) code = asked;
    if (!well(code)) return fail_locked(explain_nccl(library_, code, c));
  }
}

void NcclWorld::patrol() {
  const auto period = std::clamp(deadline_ / 20, std::chrono::milliseconds(2), std::chrono::milliseconds(100));
  std::unique_lock lock(mutex_);
  try {
    use_device(device_);
  } catch (const Error& e) { fail_locked(e.what()); }
  while (!changed_.wait_for(lock, period, [this] { return over_; }))
    if (failure_.empty()) look();
}

}  // namespace agon
