#include "moe/pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

RouterContext sequences(std::vector<int32_t> offsets) {
  RouterContext c;
  c.sequence_offsets = tensor_of(offsets);
  return c;
}

/// [T E] 0 or 1, after seeing that a token's pairs are ordered by score.
std::vector<int> mask(const Selection& s, const Tensor& scores) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  std::vector<int> chosen(static_cast<size_t>(T * E));
  const auto offset = s.token_offsets.data<const int32_t>(), expert = s.expert.data<const int32_t>();
  CHECK(offset.back() == s.expert.size());
  for (int64_t t = 0; t < T; ++t) {
    const auto better = [&](int32_t a, int32_t b) {
      const double x = scores.data<double>()[t * E + a], y = scores.data<double>()[t * E + b];
      return x != y ? x > y : a < b;
    };
    CHECK(std::is_sorted(expert.begin() + offset[t], expert.begin() + offset[t + 1], better));
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) chosen[size_t(t * E + expert[i])] += 1;
  }
  return chosen;
}

/// Scores with many ties: three values.
Tensor coarse(Shape shape, uint64_t seed) {
  const Tensor s = random(shape, seed);
  for (double& v : s.data<double>()) v = v < -0.4 ? 0.1 : v < 0.4 ? 0.2 : 0.3;
  return s;
}

/// Chosen iff fewer than `budget` pairs of `rivals` come before it.
void check_best(const std::vector<int>& chosen, const Tensor& scores, const std::vector<int64_t>& rivals,
                int64_t budget) {
  for (int64_t i : rivals) {
    int64_t before = 0;
    for (int64_t j : rivals) {
      const double a = scores.data<double>()[j], b = scores.data<double>()[i];
      before += a > b || (a == b && j < i);
    }
    CHECK(chosen[size_t(i)] == (before < budget));
  }
}

}  // namespace

TEST_CASE("pool: experts take their best tokens, scopes their best pairs, ties to the lower index") {
  const int64_t T = 12, E = 4;
  const RouterContext context = sequences({0, 5, 7, 12});
  for (const Tensor& scores : {random({T, E}, 5), coarse({T, E}, 6), Tensor({T, E}, DType::f64).zero()})
    for (const char* kind : {"batch", "sequence", "time_step"})
      for (int64_t group : {0, 1, 3})
        for (double k : {0.4, 1.0, 1.5, 2.0, 4.0}) {
          CAPTURE(std::string(kind));
          CAPTURE(group);
          CAPTURE(k);
          const Scopes scopes = make_scopes(context, T, group, kind);
          const auto offset = scopes.offsets.data<int32_t>(), token = scopes.token.data<int32_t>();
          const auto each = spread_budget(scopes, k / double(E)), all = spread_budget(scopes, k);
          const auto by_expert = mask(select_per_expert(scores, scopes, k), scores);
          const auto global = mask(select_global(scores, scopes, k), scores);
          for (int64_t s = 0; s < scopes.count(); ++s) {
            std::vector<int64_t> pairs;
            for (int64_t e = 0; e < E; ++e) {
              std::vector<int64_t> column;
              for (int32_t i = offset[s]; i < offset[s + 1]; ++i) column.push_back(token[i] * E + e);
              check_best(by_expert, scores, column, each[size_t(s)]);
              pairs.insert(pairs.end(), column.begin(), column.end());
            }
            check_best(global, scores, pairs, all[size_t(s)]);
          }
          if (std::string(kind) == "batch" && group == 0)
            CHECK(std::accumulate(global.begin(), global.end(), 0) == int(k * double(T)));
        }
}

TEST_CASE("pool: the chosen pairs are the optimum of the linear programme") {
  const int64_t T = 30, E = 6;
  for (uint64_t seed = 1; seed < 20; ++seed) {
    const Tensor scores = random({T, E}, seed);
    const Scopes scopes = make_scopes({}, T, 0, "batch");
    const auto value = [&](const Selection& s) {
      const auto chosen = mask(s, scores);
      double sum = 0;
      int n = 0;
      for (size_t i = 0; i < chosen.size(); ++i) {
        sum += chosen[i] * scores.data<double>()[i];
        n += chosen[i];
      }
      CHECK(n == 2 * T);
      return sum;
    };
    const double best = value(select_global(scores, scopes, 2));
    CHECK(best >= value(select_per_expert(scores, scopes, 2)));
    CHECK(best >= value(select_per_token(scores, {}, {.k = 2})));
  }
}

TEST_CASE("pool: thresholds choose each pair by itself, and those of a step meet its budget") {
  const int64_t T = 40, E = 5;
  const auto comm = make_self_communicator();
  const std::vector<Tensor> step{random({T, E}, 8)};
  RouterContext causal;
  causal.mode = Mode::eval;
  for (const auto& [taker, count] : {std::pair{Taker::expert, E}, {Taker::scope, int64_t(1)}}) {
    Thresholds t(count, DType::f64, 1.5, 0.9);
    CHECK_THROWS_WITH_AS(select_from_pool(step[0], taker, 1.5, 0, {}, t, causal),
                         doctest::Contains("layer 0 has no thresholds"), UserError);
    t.learn(step, *comm);
    const auto reached = mask(select_from_pool(step[0], taker, 1.5, 0, {}, t, causal), step[0]);
    const auto trained = mask(select_from_pool(step[0], taker, 1.5, 0, {}, t, {}), step[0]);
    CHECK(reached == trained);
  }
  const Tensor scores = tensor_of<double>({1, 2, 3, 3, 2, 1}).reshape({2, 3});
  CHECK(mask(select_reaching(scores, tensor_of<double>({2})), scores) == std::vector<int>{0, 1, 1, 1, 1, 0});
  CHECK(mask(select_reaching(scores, tensor_of<double>({3, 2, 5})), scores) == std::vector<int>{0, 1, 0, 1, 1, 0});
}

TEST_CASE("pool: held pairs are returned as they are") {
  const Tensor scores = random({6, 3}, 1);
  Pairs pairs;
  pairs.expert = tensor_of<int32_t>({2});
  pairs.token_offsets = tensor_of<int32_t>({0, 0, 1, 1, 1, 1, 1});
  const std::vector<Pairs> held{pairs};
  RouterContext context;
  context.held = held;
  const Selection s = select_from_pool(scores, Taker::scope, 2, 0, {}, Thresholds(1, DType::f64, 2, 0.5), context);
  CHECK(s.expert.id() == pairs.expert.id());
}
