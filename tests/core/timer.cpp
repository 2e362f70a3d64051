#include "core/timer.h"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "core/copy.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("timer: measures what passes, and can be used again") {
  Timer timer;
  for (const int milliseconds : {20, 1}) {
    const auto before = std::chrono::steady_clock::now();
    timer.start();
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    const double seconds = timer.stop();
    const double around = std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
    CHECK(seconds >= milliseconds / 1e3);
    CHECK(seconds <= around);
  }
  CHECK_THROWS_WITH_AS(Timer().stop(), doctest::Contains("never started"), Error);
}

GPU_CASE("timer: a device's own clock sees its work") {
  const Tensor from = there(random({1 << 16}, 1)), to({1 << 16}, DType::bf16, device_of_case());
  Timer timer(device_of_case());
  const auto before = std::chrono::steady_clock::now();
  timer.start();
  copy(to, from);
  const double seconds = timer.stop();
  CHECK(seconds > 0);
  CHECK(seconds <= std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count());
  CHECK(identical(on_host(to), converted(random({1 << 16}, 1), DType::bf16)));
}
