#include "core/gpu.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("gpu: where there is none, it is said why, and asking for one is the user's mistake") {
  const Gpus gpus = find_gpus();
  CHECK(gpus.found.empty() == !gpus.why_none.empty());
  const Device beyond{Device::cuda, int(gpus.found.size())};
  CHECK_THROWS_AS(use_device(beyond), UserError);
  if constexpr (!kHasCuda) {
    CHECK_THROWS_WITH_AS(use_device({Device::cuda, 0}), doctest::Contains("this build has no CUDA"), UserError);
    CHECK_THROWS_WITH_AS(Tensor({2}, DType::f32, {Device::cuda, 0}), doctest::Contains("this build has no CUDA"),
                         Error);
  }
  use_device({});
  synchronize({});
}

TEST_CASE("gpu: f32 means f32 unless TF32 is allowed") {
  CHECK_FALSE(tf32());
  set_tf32(true);
  CHECK(tf32());
  set_tf32(false);
}

GPU_CASE("gpu: numbers cross and come back, in every dtype, and each crossing is counted") {
  const Tensor x = random({1000}, 3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    const Tensor here = converted(x, dtype);
    const Crossings before = crossings();
    const Tensor up = there(here);
    CHECK(up.device() == device_of_case());
    CHECK_THROWS_WITH_AS(up.data<float>(), doctest::Contains("access from the host to a tensor on cuda:0"), Error);
    const Tensor back = on_host(up);
    CHECK(identical(back, here));
    CHECK(crossings().to_device == before.to_device + 1);
    CHECK(crossings().to_host == before.to_host + 1);
    for (const DType other : {DType::f32, DType::bf16, DType::f64})
      CHECK(identical(converted(up, other), converted(here, other)));
  }
}

GPU_CASE("gpu: fill, steps, one element, another dtype on the way") {
  const Tensor t({700}, DType::f32, device_of_case());
  fill(t, 2.5);
  CHECK(on_host(t).data<float>()[699] == 2.5f);
  t.zero();
  CHECK(on_host(t).data<float>()[699] == 0.f);
  const Tensor i({700}, DType::i32, device_of_case());
  fill_steps(i, 3, -2);
  CHECK(on_host(i).data<int32_t>()[699] == 3 - 2 * 699);
  const Tensor one({1}, DType::bf16, device_of_case());
  fill(one, 0.5);
  CHECK(one.item() == 0.5);
  const Tensor wide({700}, DType::f64);
  copy(wide, i);
  CHECK(wide.data<double>()[1] == 1);
}

GPU_CASE("gpu: more memory than there is, is an error that says how much was wanted") {
  CHECK_THROWS_WITH_AS(Tensor({int64_t(1) << 46}, DType::f32, device_of_case()),
                       doctest::Contains("out of memory: 281474976710656 bytes wanted on cuda:0"), OutOfMemory);
  Arena arena(0, device_of_case());
  const Arena::Scope scope(arena);
  CHECK_THROWS_WITH_AS(Tensor({int64_t(1) << 46}, DType::f32, device_of_case()),
                       doctest::Contains("would have held, at the peak"), OutOfMemory);
}
