#include "moe/thresholds.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "tests/moe/support.h"
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
