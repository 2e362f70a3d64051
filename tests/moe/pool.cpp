#include "moe/pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "tests/moe/support.h"
#include "tests/support/cuda.h"

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

/// f32 scores with many ties, zeros of both signs among them; with `nothing` also infinities and NaN.
Tensor tied(Shape shape, uint64_t seed, bool nothing) {
  const Tensor s = random(shape, seed, 1, DType::f32);
  for (float& v : s.data<float>()) {
    v = std::round(v * 2) / 4;
    if (!nothing) continue;
    if (v == 0.5f) v = std::nanf("");
    if (v == -0.5f) v = -INFINITY;
    if (v == 1.0f) v = INFINITY;
  }
  return s;
}

/// The same order with numbers alone: what is NaN is below all.
Tensor ranked(const Tensor& scores) {
  const Tensor s = clone(scores);
  for (float& v : s.data<float>()) v = std::isnan(v) ? -2e30f : v == -INFINITY ? -1e30f : v;
  return s;
}

/// Chooses on the CPU and, with threads in some other order too, on a GPU, without a crossing.
template <class F>
void check_on_gpu(const RouterContext& context, const Tensor& scores, int64_t group, const char* kind, uint64_t orders,
                  const F& choose) {
  const int64_t T = scores.shape(0);
  const Selection here = choose(ranked(scores), make_scopes(context, T, group, kind));
  const Tensor on_gpu = there(scores);
  for (uint64_t order = 0; order < orders; ++order) {
    const ThreadOrder changed(order);
    const auto before = crossings();
    const Selection s = choose(on_gpu, make_scopes(context, T, group, kind, device_of_case()));
    CHECK(crossings().to_device == before.to_device);
    CHECK(crossings().to_host == before.to_host);
    CHECK(identical(s.token_offsets, here.token_offsets));
    CHECK(identical(s.expert, here.expert));
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
          const Tensor each = spread_budget(scopes, k / double(E)), all = spread_budget(scopes, k);
          const auto by_expert = mask(select_per_expert(scores, scopes, k), scores);
          const auto global = mask(select_global(scores, scopes, k), scores);
          for (int64_t s = 0; s < scopes.count(); ++s) {
            std::vector<int64_t> pairs;
            for (int64_t e = 0; e < E; ++e) {
              std::vector<int64_t> column;
              for (int32_t i = offset[s]; i < offset[s + 1]; ++i) column.push_back(token[i] * E + e);
              check_best(by_expert, scores, column, each.data<int32_t>()[s]);
              pairs.insert(pairs.end(), column.begin(), column.end());
            }
            check_best(global, scores, pairs, all.data<int32_t>()[s]);
          }
          if (std::string(kind) == "batch" && group == 0)
            CHECK(std::accumulate(global.begin(), global.end(), 0) == int(k * double(T)));
        }
}

TEST_CASE("pool: scopes of many blocks, with and without ties at the cut, in f32 and f64, at any thread count") {
  const int64_t T = 1100, E = 24;
  const RouterContext context = sequences({0, 1050, 1100});
  for (const Tensor& given : {random({T, E}, 5), coarse({T, E}, 6), random({T, E}, 7, 1e-6)})
    for (const DType dtype : {DType::f64, DType::f32})
      for (const char* kind : {"batch", "sequence"}) {
        CAPTURE(std::string(kind));
        const Tensor scores = converted(given, dtype), wide = converted(scores, DType::f64);
        const Scopes scopes = make_scopes(context, T, 0, kind);
        const Tensor each = spread_budget(scopes, 2.5 / double(E)), all = spread_budget(scopes, 2.5);
        const auto offset = scopes.offsets.data<int32_t>();
        std::vector<int> by_expert(size_t(T * E)), global(by_expert);
        const auto take = [&](std::vector<int>& chosen, std::vector<int64_t> rivals, int64_t n) {
          std::ranges::stable_sort(
              rivals, [&](int64_t a, int64_t b) { return wide.data<double>()[a] > wide.data<double>()[b]; });
          for (int64_t i = 0; i < n; ++i) chosen[size_t(rivals[size_t(i)])] = 1;
        };
        for (int64_t s = 0; s < scopes.count(); ++s) {
          std::vector<int64_t> pairs(size_t(offset[s + 1] - offset[s]) * size_t(E));
          std::iota(pairs.begin(), pairs.end(), offset[s] * E);
          take(global, pairs, all.data<int32_t>()[s]);
          for (int64_t e = 0; e < E; ++e) {
            std::vector<int64_t> column;
            for (int64_t t = offset[s]; t < offset[s + 1]; ++t) column.push_back(t * E + e);
            take(by_expert, column, each.data<int32_t>()[s]);
          }
        }
        for (const int n : {1, 3}) {
          set_threads(n);
          CHECK(mask(select_global(scores, scopes, 2.5), wide) == global);
          CHECK(mask(select_per_expert(scores, scopes, 2.5), wide) == by_expert);
        }
        set_threads(0);
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

GPU_CASE("pool: a GPU chooses the same pairs, whatever the ties and with NaN below all") {
  struct Size {
    std::vector<int32_t> sequences;
    int64_t E;
  };
  for (const Size& size : {Size{{0, 5, 5, 7, 12}, 4}, Size{{0, 1}, 1}, Size{{0, 1}, 5}, Size{{0, 3, 40}, 1},
                           Size{{0, 0}, 3}, Size{{0, 30, 51}, 7}}) {
    const int64_t T = size.sequences.back(), E = size.E;
    RouterContext context = sequences(size.sequences);
    context.sequence_offsets_there = there(context.sequence_offsets);
    for (const bool nothing : {false, true})
      for (const char* kind : {"batch", "sequence", "time_step"})
        for (const int64_t group : {0, 1})
          for (const double k : {0.0, 0.01, 0.4, 1.0, 1.7, double(E)}) {
            if (k > double(E) || (T > 50 && (group == 1 || k == 0.4))) continue;
            CAPTURE(T);
            CAPTURE(E);
            CAPTURE(std::string(kind));
            CAPTURE(group);
            CAPTURE(k);
            const Tensor scores = tied({T, E}, uint64_t(T + E), nothing);
            const uint64_t orders = k == 1.0 && group == 0 ? 3 : 1;
            check_on_gpu(context, scores, group, kind, orders,
                         [&](const Tensor& s, const Scopes& scopes) { return select_per_expert(s, scopes, k); });
            check_on_gpu(context, scores, group, kind, orders,
                         [&](const Tensor& s, const Scopes& scopes) { return select_global(s, scopes, k); });
          }
  }
}

GPU_CASE("pool: a GPU takes the best of thousands") {
  const int64_t T = 4100, E = 2;
  RouterContext context;
  const Tensor scores = random({T, E}, 3, 1, DType::f32);
  for (const double k : {0.001, 0.9, 1.9}) {
    const auto pick = [&](const Tensor& s, bool global) {
      const Scopes scopes = make_scopes(context, T, 0, "batch", s.device());
      return global ? select_global(s, scopes, k) : select_per_expert(s, scopes, k);
    };
    for (const bool global : {false, true}) {
      const Selection here = pick(scores, global), on_gpu = pick(there(scores), global);
      CHECK(identical(on_gpu.token_offsets, here.token_offsets));
      CHECK(identical(on_gpu.expert, here.expert));
    }
  }
}

GPU_CASE("pool: a GPU lets pass what reaches the thresholds, with room for all") {
  const int64_t T = 37, E = 5;
  const Tensor scores = tied({T, E}, 2, true);
  for (const Tensor& threshold :
       {tensor_of<float>({0.25f}), tensor_of<float>({0, 0.25f, -INFINITY, 9, std::nanf("")})}) {
    const Selection here = select_reaching(scores, threshold),
                    on_gpu = select_reaching(there(scores), there(threshold));
    CHECK(identical(on_gpu.token_offsets, here.token_offsets));
    REQUIRE(on_gpu.expert.size() == T * E);
    const Tensor expert = on_host(on_gpu.expert);
    const auto all = expert.data<int32_t>(), some = here.expert.data<int32_t>();
    CHECK(std::equal(some.begin(), some.end(), all.begin()));
    CHECK(std::all_of(all.begin() + ptrdiff_t(some.size()), all.end(), [](int32_t e) { return e == -1; }));
  }
}
