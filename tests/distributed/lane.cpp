#include "distributed/lane.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "core/copy.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("lane: copies after this thread's work and before what follows a mark") {
  const Device device = device_of_case();
  Lane lane(device);
  CHECK(lane.device() == device);
  const Tensor a({100'000}, DType::f32, device), b({100'000}, DType::f32, device);
  Lane::Mark mark;
  for (int i = 0; i < 20; ++i) {
    fill(a, i);
    lane.follow_work();
    lane.copy(const_cast<void*>(b.address()), a.address(), size_t(a.bytes()));
    lane.set(mark);
    Lane::work_follows(device, mark);
    const Tensor c = on_host(clone(b));
    CHECK(std::ranges::all_of(c.data<const float>(), [&](float v) { return v == float(i); }));
    CHECK(Lane::reached(device, mark));
    fill(b, -1);
  }
  lane.copy(nullptr, nullptr, 0);
}
