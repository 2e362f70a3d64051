#include "apps/signals.h"

#include <atomic>
#include <csignal>
#include <mutex>

namespace agon {

namespace {

std::atomic<int> stop_signal = 0, save_wanted = 0;
static_assert(std::atomic<int>::is_always_lock_free);  // as a handler needs

std::mutex counting;
int listeners = 0;  // ranks that are threads listen together
struct sigaction old_int, old_term, old_usr1, old_xfsz;

void on_stop(int signal) {
  if (signal == SIGINT && stop_signal == SIGINT) {  // asked twice
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  stop_signal = signal;
}
void on_save(int) { save_wanted = 1; }

void install(int signal, void (*handler)(int), struct sigaction* old) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, old);
}

}  // namespace

Signals::Signals() {
  const std::lock_guard lock(counting);
  if (listeners++ > 0) return;
  stop_signal = 0;
  save_wanted = 0;
  install(SIGINT, on_stop, &old_int);
  install(SIGTERM, on_stop, &old_term);
  install(SIGUSR1, on_save, &old_usr1);
  install(SIGXFSZ, SIG_IGN, &old_xfsz);
}

Signals::~Signals() {
  const std::lock_guard lock(counting);
  if (--listeners > 0) return;
  sigaction(SIGINT, &old_int, nullptr);
  sigaction(SIGTERM, &old_term, nullptr);
  sigaction(SIGUSR1, &old_usr1, nullptr);
  sigaction(SIGXFSZ, &old_xfsz, nullptr);
}

int Signals::stop() { return stop_signal; }

bool Signals::take_save() { return save_wanted.exchange(0) != 0; }

}  // namespace agon
