#include "moe/thresholds.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "tests/moe/support.h"
#include "tests/support/cuda.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("thresholds: as many scores reach the cut as the budget asks for, pooled and per expert, on any ranks") {
  const int64_t T = 40, E = 5;
  const Tensor all = random({T, E}, 3);
  for (double k : {1.0, 0.3, 2.7, 5.0, 0.001}) {
    CAPTURE(k);
    for (int ranks : {1, 4}) {
      CAPTURE(ranks);
      run_on_threads(ranks, [&](Communicator& comm) {
        const int64_t each = T / ranks, first = comm.rank() * each;
        const std::vector<Tensor> micro{slice(all, first, first + each / 2),
                                        slice(all, first + each / 2, first + each)};
        const Tensor layer = cut(micro, k, true, comm), expert = cut(micro, k, false, comm);
        CHECK(std::ranges::count_if(all.data<double>(), [&](double v) { return v >= layer.item(); }) ==
              std::max<int64_t>(1, int64_t(k * double(T))));
        for (int64_t e = 0; e < E; ++e) {
          int64_t n = 0;
          for (int64_t t = 0; t < T; ++t) n += all.data<double>()[t * E + e] >= expert.data<double>()[e];
          CHECK(n == std::max<int64_t>(1, int64_t(k / double(E) * double(T))));
        }
      });
    }
  }
}

TEST_CASE("thresholds: the first cut is taken whole, later ones move the average") {
  const auto comm = make_self_communicator();
  Thresholds t(1, DType::f32, 1, 0.75);
  CHECK_FALSE(t.known());
  const std::vector<Tensor> one{tensor_of<float>({4, 8}).reshape({1, 2})},
      two{tensor_of<float>({16, 2}).reshape({1, 2})};
  t.learn(one, *comm);
  CHECK(t.known());
  CHECK(t.value.item() == 8);
  t.learn(two, *comm);
  CHECK(t.value.item() == 0.75 * 8 + 0.25 * 16);
}

GPU_CASE("thresholds: a GPU makes the same cut and the same average, and nothing crosses") {
  const auto comm = make_self_communicator();
  for (const int64_t E : {1, 7}) {
    for (const bool ties : {false, true}) {
      const Tensor a = random({30, E}, 3, 1, DType::f32), b = random({1, E}, 4, 1, DType::f32);
      if (ties)
        for (float& v : a.data<float>()) v = std::round(v);
      const std::vector<Tensor> here{a, b}, on_gpu{there(a), there(b)};
      for (const double k : {0.001, 0.3, 0.9, 1.0, 2.7, double(E)})
        for (const bool pooled : {false, true})
          for (const uint64_t order : {0, 1, 2}) {
            CAPTURE(k);
            CAPTURE(pooled);
            const ThreadOrder changed(order);
            const auto before = crossings();
            const Tensor at = cut(on_gpu, k, pooled, *comm);
            CHECK(crossings().to_host == before.to_host);
            CHECK(crossings().to_device == before.to_device);
            const Tensor expected = cut(here, k, pooled, *comm), found = on_host(at);
            REQUIRE(found.shape() == expected.shape());
            for (int64_t i = 0; i < found.size(); ++i)  // 0 and -0 are one number
              CHECK(found.data<float>()[i] == expected.data<float>()[i]);
          }
      Thresholds on_cpu(E, DType::f32, 0.8, 0.75), t(E, DType::f32, 0.8, 0.75);
      t.value = there(t.value);
      CHECK_FALSE(t.known());
      const auto before = crossings();
      for (int step = 0; step < 3; ++step) {
        on_cpu.learn({here.data() + step % 2, 1}, *comm);
        t.learn({on_gpu.data() + step % 2, 1}, *comm);
      }
      CHECK(crossings().to_host == before.to_host);
      CHECK(t.known());
      CHECK(relative_error(t.value, on_cpu.value) < 1e-6);
    }
  }
}
