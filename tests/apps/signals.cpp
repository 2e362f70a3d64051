#include "apps/signals.h"

#include <doctest/doctest.h>

#include <csignal>

using namespace agon;

TEST_CASE("signals: noticed once, handlers put back") {
  const auto before = std::signal(SIGTERM, SIG_IGN);
  {
    const Signals signals;
    CHECK(Signals::stop() == 0);
    std::raise(SIGUSR1);
    CHECK(Signals::take_save());
    CHECK(!Signals::take_save());
    std::raise(SIGTERM);
    CHECK(Signals::stop() == SIGTERM);
  }
  CHECK((std::signal(SIGTERM, before) == SIG_IGN));
}
