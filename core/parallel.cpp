#include "core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace agon {

namespace {

thread_local bool inside = false;  // this thread runs a task: nested loops stay on it

int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : int(std::max(1u, std::thread::hardware_concurrency()));
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// One loop at a time. Workers spin briefly between loops, since a training step is thousands of short ones, then sleep.
class Pool {
 public:
  explicit Pool(int n) {
    for (int i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      ++generation_;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }
  int size() const { return int(workers_.size()) + 1; }

  /// False when another thread holds the pool.
  bool run(int64_t tasks, void (*call)(void*, int64_t), void* f) {
    std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy) return false;
    {
      std::lock_guard lock(mutex_);
      call_ = call;
      f_ = f;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      running_.store(int(workers_.size()), std::memory_order_relaxed);
      error_ = nullptr;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleeping_.load() > 0) wake_.notify_all();
    take_tasks();
    for (int spin = 0; running_.load(std::memory_order_acquire) > 0; ++spin)
      if (spin > 2000) std::this_thread::yield();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return true;
  }

 private:
  void take_tasks() {
    inside = true;
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) {
      try {
        call_(f_, i);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(tasks_, std::memory_order_relaxed);
      }
    }
    inside = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 4000 && generation_.load(std::memory_order_acquire) == seen; ++spin) relax();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        sleeping_.fetch_sub(1);
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      take_tasks();
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex busy_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_ = 0;
  std::atomic<int> running_ = 0, sleeping_ = 0;
  std::atomic<int64_t> next_ = 0;
  int64_t tasks_ = 0;
  void (*call_)(void*, int64_t) = nullptr;
  void* f_ = nullptr;
  std::exception_ptr error_;
  bool stop_ = false;
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
  return wanted > 0 ? wanted.load() : available;
}

namespace detail {

void parallel_tasks(int64_t tasks, void (*call)(void*, int64_t), void* f) {
  if (tasks > 1 && !inside && threads() > 1 && the_pool()->run(tasks, call, f)) return;
  for (int64_t i = 0; i < tasks; ++i) call(f, i);
}

}  // namespace detail

}  // namespace agon
