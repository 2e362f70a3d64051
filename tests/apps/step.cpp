#include "apps/step.h"

#include <doctest/doctest.h>

#include <vector>

#include "core/tensor.h"

using namespace agon;

TEST_CASE("step: measures, reserves, then repeats its addresses") {
  Step step;
  std::vector<const void*> first, again;
  const auto body = [&](std::vector<const void*>& at) {
    const Tensor a({100}, DType::f32);
    Tensor b({50}, DType::f64);
    at = {a.address(), b.address()};
    b = Tensor();
    const Tensor c({60}, DType::f32);
    at.push_back(c.address());
  };
  step([&] { body(first); });
  const size_t extent = step.extent();
  CHECK(extent == 512 + 512);
  step([&] { body(first); });
  step([&] { body(again); });
  CHECK(first == again);
  CHECK(first[1] == first[2]);
  CHECK(step.extent() == extent);
  CHECK(!step.peak_report().empty());
}

TEST_CASE("step: a call that needs more is served, and the next one finds a larger slab") {
  Step step;
  for (const int64_t n : {10, 10, 100000, 100000, 10}) {
    const float* p = nullptr;
    step([&] {
      const Tensor a({n}, DType::f32);
      p = a.data<float>().data();
      for (float& v : a.data<float>()) v = 1;
    });
    CHECK(p != nullptr);
  }
  CHECK(step.extent() >= 400000);
}

TEST_CASE("step: a body that keeps memory is an error") {
  Step step;
  {
    Tensor kept;
    CHECK_THROWS_WITH_AS(step([&] { kept = Tensor({4}, DType::f32); }), doctest::Contains("kept 256 bytes"), Error);
  }
}
