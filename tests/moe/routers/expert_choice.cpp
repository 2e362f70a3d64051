#include <doctest/doctest.h>

#include <cmath>

#include "moe/thresholds.h"
#include "ops/softmax.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 15, kExperts = 5;

std::unique_ptr<Router> made(const Settings& settings) {
  auto router = router_options("expert_choice", settings)->make({kWidth, kExperts, Precision::f64(), 0.5});
  each_parameter(*router, [](const std::string&, Parameter& p) { fill_normal(p.value, {2, 3}, 1); });
  return router;
}

}  // namespace

TEST_CASE("expert_choice: every expert takes exactly its budget, of every scope") {
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 4, 10, int32_t(kTokens)});
  for (const char* scope : {"batch", "sequence", "time_step"})
    for (double k : {0.5, 1.0, 2.0, 3.7, 5.0}) {
      CAPTURE(k);
      const auto router = made({{"k", k}, {"scope", scope}});
      const Pairs pairs = router->select(random({kTokens, kWidth}, 1), context);
      const Statistics s = router->weigh(pairs, {}, {}, context).statistics;
      for (double n : s.load.data<double>()) CHECK(n == std::floor(k / double(kExperts) * double(kTokens)));
    }
}

TEST_CASE("expert_choice: weights are the router's probabilities, and no loss unless asked for") {
  const auto router = made({{"k", 1.4}});
  const Pairs pairs = router->select(random({kTokens, kWidth}, 1), {});
  CHECK(identical(pairs.scores, softmax(pairs.logits)));
  const auto offset = pairs.token_offsets.data<int32_t>(), expert = pairs.expert.data<int32_t>();
  for (int64_t t = 0; t < kTokens; ++t)
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i)
      CHECK(pairs.weight.data<double>()[i] == pairs.scores.data<double>()[t * kExperts + expert[i]]);
  CHECK(router->weigh(pairs, {}, {}, {}).losses.empty());
  const auto with = made({{"balance_coefficient", 0.5}, {"z_coefficient", 0.1}});
  CHECK(with->weigh(with->select(random({kTokens, kWidth}, 1), {}), {}, {}, {}).losses.size() == 2);
}

TEST_CASE("expert_choice: has a threshold for each expert, unknown at first and learned from all tokens of a step") {
  const auto router = made({{"k", 2}, {"scope", "sequence"}});
  REQUIRE(router->thresholds());
  CHECK(router->thresholds()->value.shape() == Shape{kExperts});
  CHECK_FALSE(router->thresholds()->known());
  const auto self = make_self_communicator();
  const Pairs pairs = router->select(random({kTokens, kWidth}, 1), {});
  const Statistics s = router->weigh(pairs, {}, {}, {}).statistics;
  router->after_step({s.chosen, {s.candidates}, self.get()});
  for (int64_t e = 0; e < kExperts; ++e) {
    int64_t reach = 0;
    for (int64_t t = 0; t < kTokens; ++t)
      reach += pairs.scores.data<double>()[t * kExperts + e] >= router->thresholds()->value.data<double>()[e];
    CHECK(reach == 6);  // 2 / 5 of 15
  }
}
