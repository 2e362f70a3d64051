#pragma once
#include <cstdint>
#include <type_traits>

namespace agon {

/// How many threads parallel loops use, the calling one included. 0 means one per core this process may run on.
/// Results never depend on it. Holds for loops that start afterwards.
void set_threads(int n);
int threads();

namespace detail {
void parallel_tasks(int64_t tasks, void (*call)(void* f, int64_t task), void* f);
}

/// Calls f(0) ... f(tasks - 1), each once, on the pool's threads; returns when all are done. Tasks must not write what
/// another task touches. The first exception is thrown again here. Loops inside a task, and loops started while another
/// thread (rank) holds the pool, run on the calling thread.
template <class F>
void parallel_tasks(int64_t tasks, F&& f) {
  using G = std::remove_reference_t<F>;
  detail::parallel_tasks(
      tasks, [](void* g, int64_t task) { (*static_cast<G*>(g))(task); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

/// Calls f(begin, end) over [0, n) in pieces of `grain` (the last may be shorter). Pieces depend on n and grain alone,
/// never on the number of threads.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  if (n <= grain) return f(int64_t(0), n);
  parallel_tasks((n + grain - 1) / grain,
                 [&](int64_t i) { f(i * grain, i * grain + grain < n ? i * grain + grain : n); });
}

}  // namespace agon
