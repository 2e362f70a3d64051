#include "ops/cpu/peak.h"

#include <doctest/doctest.h>

#include "ops/cpu/peak_loop.h"

using namespace agon;

TEST_CASE("peak: a loop of this processor, a positive rate") {
  const cpu::PeakLoop loop = cpu::widest_peak_loop();
  CHECK(loop.lanes >= 4);
  CHECK(loop.run() == loop.run());
  CHECK(cpu::run_portable() > 0);
  CHECK(cpu::probe_peak(0.001) > 1e6);
}
