#include <doctest/doctest.h>

#include <cmath>

#include "moe/thresholds.h"
#include "moe/unified_scores.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 10, kExperts = 4;

struct Unified {
  std::unique_ptr<Router> router;
  Parameter* gate = nullptr;
  explicit Unified(const Settings& settings)
      : router(router_options("unified", settings)->make({kTokens, kExperts, Precision::f64(), 0.5})) {
    each_parameter(*router, [&](const std::string&, Parameter& p) {
      fill_normal(p.value, {2, 3}, 1);
      gate = &p;
    });
  }
};

/// x is the identity, so that the gate's gradient is that of the logits, transposed.
Tensor identity() {
  Tensor x = Tensor({kTokens, kTokens}, DType::f64).zero();
  for (int64_t t = 0; t < kTokens; ++t) x.data<double>()[t * kTokens + t] = 1;
  return x;
}

}  // namespace

TEST_CASE("unified: the budget is met exactly, fractional and per scope") {
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 3, int32_t(kTokens)});
  for (const char* scope : {"batch", "sequence", "time_step"})
    for (double k : {0.3, 1.0, 1.7, 2.5, 4.0}) {
      CAPTURE(k);
      const Unified u({{"k", k}, {"scope", scope}});
      CHECK(u.router->select(identity(), context).expert.size() == int64_t(k * double(kTokens)));
    }
}

TEST_CASE("unified: its gradient is the written one, for every norm and both views") {
  const double alpha = 0.3;
  const Tensor r = random({kTokens, kExperts}, 8);  // <dy, o> of the pairs
  for (const char* norm : {"none", "row_all", "row_selected"})
    for (const char* view : {"sigmoid", "softmax"}) {
      CAPTURE(std::string(norm));
      const Unified u({{"k", 2.3}, {"alpha", alpha}, {"norm", norm}, {"expert_score", view}});
      Parameter* const all[] = {u.gate};
      u.gate->has_grad = false;
      Tape tape(all);
      const Pairs pairs = u.router->select(identity(), {});
      const auto offset = pairs.token_offsets.data<int32_t>(), expert = pairs.expert.data<int32_t>();
      Tensor slope({pairs.expert.size()}, DType::f64);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int32_t i = offset[t]; i < offset[t + 1]; ++i)
          slope.data<double>()[i] = r.data<double>()[t * kExperts + expert[i]];
      tape.backward(sum(multiply(pairs.weight, slope)));

      const auto z = [&](int64_t t, int64_t e) { return u.gate->value.data<double>()[e * kTokens + t]; };
      const auto W = [&](int64_t t, int64_t e) { return pairs.scores.data<double>()[t * kExperts + e]; };
      std::vector<std::vector<double>> dW(size_t(kTokens), std::vector<double>(size_t(kExperts), 0.0));
      for (int64_t t = 0; t < kTokens; ++t) {
        double every = 0, chosen = 0, m = 0;
        for (int64_t e = 0; e < kExperts; ++e) every += W(t, e);
        for (int32_t i = offset[t]; i < offset[t + 1]; ++i) chosen += W(t, expert[i]);
        const double A = std::string(norm) == "none" ? 1 : std::string(norm) == "row_all" ? every : chosen;
        if (std::string(norm) != "none")
          for (int32_t i = offset[t]; i < offset[t + 1]; ++i) m += W(t, expert[i]) / A * slope.data<double>()[i];
        auto& row = dW[size_t(t)];
        if (std::string(norm) == "row_all") std::ranges::fill(row, -m / A);
        for (int32_t i = offset[t]; i < offset[t + 1]; ++i) row[size_t(expert[i])] = (slope.data<double>()[i] - m) / A;
      }
      for (int64_t t = 0; t < kTokens; ++t) {
        double p_sum = 0, p_mean = 0;
        for (int64_t e = 0; e < kExperts; ++e) p_sum += std::exp(z(t, e));
        for (int64_t e = 0; e < kExperts; ++e) p_mean += std::exp(z(t, e)) / p_sum * dW[size_t(t)][size_t(e)];
        for (int64_t e = 0; e < kExperts; ++e) {
          const double p = std::exp(z(t, e)) / p_sum, s = 1 / (1 + std::exp(-z(t, e))), d = dW[size_t(t)][size_t(e)];
          double of_expert = 2.0 / double(kExperts) * s * (1 - s) * d;
          if (std::string(view) == "softmax") {
            double q_sum = 0, q_mean = 0;
            for (int64_t i = 0; i < kTokens; ++i) q_sum += std::exp(z(i, e));
            for (int64_t i = 0; i < kTokens; ++i) q_mean += std::exp(z(i, e)) / q_sum * dW[size_t(i)][size_t(e)];
            of_expert = double(kTokens) / double(kExperts) * std::exp(z(t, e)) / q_sum * (d - q_mean);
          }
          CHECK(u.gate->grad.data<double>()[e * kTokens + t] ==
                doctest::Approx((1 - alpha) * p * (d - p_mean) + alpha * of_expert).epsilon(1e-11));
        }
      }
    }
}

TEST_CASE("unified: has one threshold for the layer") {
  const Unified u({{"k", 1.5}});
  REQUIRE(u.router->thresholds());
  CHECK(u.router->thresholds()->value.size() == 1);
  CHECK(u.router->thresholds()->experts_per_token == 1.5);
}
