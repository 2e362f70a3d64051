#include "core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"

namespace agon {

namespace {

thread_local bool inside = false;  // this thread runs a task: nested loops stay on it

int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set))
                                                     : int(std::max(1u, std::thread::hardware_concurrency()));
}

/// Waits a moment. Now and then the processor is offered to others: when there are more threads than cores, the one
/// that is waited for may want this very core.
void relax(unsigned spin) {
  if (spin % 32 == 31) return std::this_thread::yield();
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// One loop at a time. The caller waits for the tasks that were taken, not for the workers: one that is asleep or was
/// preempted costs nothing. Workers spin briefly between loops, since a training step is thousands of short ones, then
/// sleep.
class Pool {
 public:
  explicit Pool(int n) {
    try {
      for (int i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& e) {
      const size_t started = workers_.size() + 1;
      stop();
      throw Error(text("no more than ", started, " of ", n, " threads could be started: ", e.what()));
    }
  }
  ~Pool() { stop(); }
  int size() const { return int(workers_.size()) + 1; }

  /// False when another thread holds the pool.
  bool run(int64_t tasks, void (*call)(void*, int64_t), void* f) {
    const std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy) return false;
    call_ = call;
    f_ = f;
    tasks_ = tasks;
    done_.store(0, std::memory_order_relaxed);
    left_.store(tasks);
    if (sleeping_.load() > 0) wake(tasks - 1);
    take_tasks();
    for (unsigned spin = 0; done_.load(std::memory_order_acquire) < tasks; ++spin) relax(spin);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return true;
  }

 private:
  static constexpr unsigned kSpins = 8000;  // of a worker before it sleeps: 0.1 to 0.3 ms

  /// Only a thread whose exchange on left_ succeeds holds a task, and only then may it read what describes the loop:
  /// until done_ counts that task, the loop cannot end.
  void take_tasks() {
    inside = true;
    for (int64_t left = left_.load(std::memory_order_relaxed); left > 0;) {
      if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_relaxed)) continue;
      int64_t finished = 1;
      try {
        call_(f_, tasks_ - left);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        finished += left_.exchange(0, std::memory_order_acq_rel);  // nobody takes the others
      }
      done_.fetch_add(finished, std::memory_order_acq_rel);
      left = left_.load(std::memory_order_relaxed);
    }
    inside = false;
  }

  void work() {
    while (!stop_.load(std::memory_order_relaxed)) {
      for (unsigned spin = 0; spin < kSpins && left_.load(std::memory_order_relaxed) == 0; ++spin) relax(spin);
      if (left_.load(std::memory_order_relaxed) == 0) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return left_.load() > 0 || stop_; });  // in the total order with sleeping_, as run() is
        sleeping_.fetch_sub(1);
      }
      take_tasks();
    }
  }

  void stop() {
    stop_ = true;
    wake(int64_t(workers_.size()));
    for (auto& w : workers_) w.join();
  }

  void wake(int64_t n) {
    { const std::lock_guard lock(mutex_); }  // a worker is not between its last look and its sleep
    for (int64_t i = 0; i < std::min(n, int64_t(workers_.size())); ++i) wake_.notify_one();
  }

  std::vector<std::thread> workers_;
  std::mutex busy_, mutex_;
  std::condition_variable wake_;
  std::atomic<int64_t> left_ = 0, done_ = 0;  // tasks nobody has taken; tasks that have ended
  std::atomic<int> sleeping_ = 0;
  std::atomic<bool> stop_ = false;
  int64_t tasks_ = 0;
  void (*call_)(void*, int64_t) = nullptr;
  void* f_ = nullptr;
  std::exception_ptr error_;
};

std::atomic<int> wanted = 0;
std::mutex pool_mutex;
std::shared_ptr<Pool> pool;

std::shared_ptr<Pool> the_pool() {
  std::lock_guard lock(pool_mutex);
  const int n = threads();
  if (!pool || pool->size() != n) {
    pool.reset();
    pool = std::make_shared<Pool>(n);
  }
  return pool;
}

}  // namespace

void set_threads(int n) { wanted = std::max(0, n); }

int threads() {
  static const int available = cores();
  const int n = wanted;
  return n > 0 ? n : available;
}

namespace detail {

void parallel_tasks(int64_t tasks, void (*call)(void*, int64_t), void* f) {
  if (tasks > 1 && !inside && threads() > 1 && the_pool()->run(tasks, call, f)) return;
  for (int64_t i = 0; i < tasks; ++i) call(f, i);
}

}  // namespace detail

}  // namespace agon
