#include "moe/selection.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "tests/moe/support.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

using Lists = std::vector<std::vector<int32_t>>;  // of experts, per token

Lists lists(const Selection& s) {
  Lists all;
  const auto offset = s.token_offsets.data<const int32_t>(), expert = s.expert.data<const int32_t>();
  for (size_t t = 0; t + 1 < offset.size(); ++t)
    all.emplace_back(expert.begin() + offset[t], expert.begin() + offset[t + 1]);
  return all;
}

/// The rules in words: sort everything.
Lists naive_choice(const Tensor& scores, const Tensor& bias, const PerToken& rule) {
  const int64_t T = scores.shape(0), E = scores.shape(1);
  Lists all;
  for (int64_t t = 0; t < T; ++t) {
    const auto value = [&](int64_t e) {
      return scores.data<double>()[t * E + e] + (bias ? bias.data<double>()[e] : 0);
    };
    std::vector<int32_t> candidates(static_cast<size_t>(E));
    std::iota(candidates.begin(), candidates.end(), 0);
    if (rule.groups > 0) {
      const int64_t size = E / rule.groups;
      std::vector<std::pair<double, int64_t>> ranking;
      for (int64_t g = 0; g < rule.groups; ++g) {
        std::vector<double> in_group;
        for (int64_t e = g * size; e < (g + 1) * size; ++e) in_group.push_back(value(e));
        std::ranges::sort(in_group, std::greater<>());
        ranking.emplace_back(-(rule.group_score == GroupScore::max ? in_group[0] : in_group[0] + in_group[1]), g);
      }
      std::ranges::sort(ranking);
      std::erase_if(candidates, [&](int32_t e) {
        return std::none_of(ranking.begin(), ranking.begin() + rule.groups_kept,
                            [&](const auto& g) { return g.second == e / size; });
      });
    }
    std::ranges::stable_sort(candidates, [&](int32_t a, int32_t b) { return value(a) > value(b); });
    candidates.resize(size_t(rule.k));
    all.push_back(candidates);
  }
  return all;
}

/// GShard's rule, pair by pair: who comes first stays.
Lists naive_drop(const Lists& chosen, const Tensor& scores, const std::vector<int32_t>& scopes, int64_t k,
                 double factor, Drop rule) {
  const int64_t E = scores.shape(1);
  Lists kept(chosen.size());
  for (size_t s = 0; s + 1 < scopes.size(); ++s) {
    const double room = std::ceil(factor * double(k) * (scopes[s + 1] - scopes[s]) / double(E));
    struct Pair {
      int64_t token, choice, expert;
      double score;
    };
    std::vector<Pair> queue;
    for (int64_t t = scopes[s]; t < scopes[s + 1]; ++t)
      for (int64_t c = 0; c < k; ++c) {
        const int64_t e = chosen[size_t(t)][size_t(c)];
        queue.push_back({t, c, e, scores.data<double>()[t * E + e]});
      }
    std::ranges::stable_sort(queue, [&](const Pair& a, const Pair& b) {
      return rule == Drop::score ? a.score > b.score : a.choice < b.choice;
    });
    std::vector<double> taken(static_cast<size_t>(E));
    std::vector<Pair> stays;
    for (const Pair& p : queue)
      if (++taken[size_t(p.expert)] <= room) stays.push_back(p);
    std::ranges::sort(stays, [](const Pair& a, const Pair& b) {
      return std::pair(a.token, a.choice) < std::pair(b.token, b.choice);
    });
    for (const Pair& p : stays) kept[size_t(p.token)].push_back(int32_t(p.expert));
  }
  return kept;
}

/// f32 with many ties, and, if wanted, NaN and infinities.
Tensor tied(Shape shape, uint64_t seed, bool nothing = false) {
  const Tensor s = random(shape, seed, 1, DType::f32);
  for (float& v : s.data<float>()) {
    v = std::round(v * 2) / 4;
    if (nothing && v == 0.5f) v = std::nanf("");
    if (nothing && v == -0.5f) v = -INFINITY;
  }
  return s;
}

void check_same(const Selection& a, const Selection& b) {
  CHECK(identical(a.expert, b.expert));
  CHECK(identical(a.token_offsets, b.token_offsets));
}

}  // namespace

TEST_CASE("selection: k best experts per token, with bias and groups, against sorting everything") {
  const Tensor scores = random({50, 12}, 1), bias = random({12}, 2, 0.5);
  for (const Tensor& b : {Tensor(), bias})
    for (const PerToken rule : {PerToken{1}, PerToken{3}, PerToken{12}, PerToken{2, 4, 1}, PerToken{5, 4, 2},
                                PerToken{5, 3, 2, GroupScore::top2}, PerToken{6, 6, 3, GroupScore::top2},
                                PerToken{2, 12, 2}, PerToken{12, 3, 3}}) {
      CAPTURE(rule.k);
      CAPTURE(rule.groups);
      CHECK(lists(select_per_token(scores, b, rule)) == naive_choice(scores, b, rule));
    }
}

TEST_CASE("selection: ties go to the lower index, of experts and of groups") {
  const Tensor same = tensor_of<float>(std::vector<float>(12, 0.25f)).reshape({2, 6});
  CHECK(lists(select_per_token(same, {}, {.k = 2})) == Lists{{0, 1}, {0, 1}});
  CHECK(lists(select_per_token(same, {}, {.k = 3, .groups = 3, .groups_kept = 2})) == Lists{{0, 1, 2}, {0, 1, 2}});
  const Tensor two = tensor_of<float>({0, 1, 0, 1, 0, 1}).reshape({1, 6});
  CHECK(lists(select_per_token(two, {}, {.k = 2, .groups = 3, .groups_kept = 1})) == Lists{{1, 0}});
}

TEST_CASE("selection: capacity with both drop rules, against a queue") {
  const Tensor scores = random({24, 5}, 3);
  for (const std::vector<int32_t>& scopes : {std::vector<int32_t>{0, 24}, {0, 7, 7, 8, 24}})
    for (const Drop rule : {Drop::position, Drop::score})
      for (const int64_t k : {1, 2, 5})
        for (const double factor : {0.1, 0.5, 1.0, 1.25, 9.0}) {
          CAPTURE(k);
          CAPTURE(factor);
          const Selection chosen = select_per_token(scores, {}, {.k = k});
          const Kept kept = drop_over_capacity(chosen, scores, tensor_of(scopes), k, factor, rule);
          CHECK(lists(kept.selection) == naive_drop(lists(chosen), scores, scopes, k, factor, rule));
          const auto pair = kept.pair.data<const int32_t>();
          const int32_t used = kept.selection.token_offsets.data<const int32_t>().back();
          CHECK(kept.selection.expert.size() == 24 * k);
          for (int32_t i = 0; i < 24 * k; ++i) {
            if (i >= used)
              CHECK(pair[i] == -1);
            else
              CHECK(chosen.expert.data<int32_t>()[pair[i]] == kept.selection.expert.data<int32_t>()[i]);
          }
          if (factor == 9.0) CHECK(used == 24 * k);
        }
}

TEST_CASE("selection: equal scores keep the earlier tokens") {
  const Tensor same = tensor_of<float>(std::vector<float>(8, 0.5f)).reshape({4, 2});
  const Selection chosen = select_per_token(same, {}, {.k = 1});
  const Kept kept = drop_over_capacity(chosen, same, tensor_of<int32_t>({0, 4}), 1, 1, Drop::score);
  CHECK(lists(kept.selection) == Lists{{0}, {0}, {}, {}});
}

TEST_CASE("selection: scopes are whole routing groups") {
  RouterContext context;
  CHECK(scope_offsets(context, 9, 0).size() == 2);
  CHECK(scope_offsets(context, 9, 1).size() == 2);  // without offsets all is one sequence
  context.sequence_offsets = tensor_of<int32_t>({0, 3, 3, 7, 9});
  const auto values = [](const Tensor& t) {
    return std::vector<int32_t>(t.data<int32_t>().begin(), t.data<int32_t>().end());
  };
  CHECK(values(scope_offsets(context, 9, 0)) == std::vector<int32_t>{0, 9});
  CHECK(values(scope_offsets(context, 9, 1)) == std::vector<int32_t>{0, 3, 3, 7, 9});
  CHECK(values(scope_offsets(context, 9, 2)) == std::vector<int32_t>{0, 3, 9});
  CHECK_THROWS_WITH_AS(scope_offsets(context, 9, 3), doctest::Contains("moe.router.group = 3"), UserError);
  context.mode = Mode::eval;
  CHECK(values(scope_offsets(context, 9, 3)) == std::vector<int32_t>{0, 7, 9});
  CHECK_THROWS_AS(scope_offsets(context, 10, 0), Error);
}

TEST_CASE("selection: NaN scores name layer, step and place") {
  const Tensor scores = random({4, 3}, 1);
  RouterContext context;
  context.layer = 7;
  context.step = 123;
  CHECK_NOTHROW(check_scores(scores, context));
  scores.data<double>()[5] = std::nan("");
  CHECK_THROWS_WITH_AS(check_scores(scores, context),
                       doctest::Contains("layer 7 at step 124 are NaN, first for token 1 and expert 2"), Error);
}

TEST_CASE("selection: a bias moves towards even loads") {
  const Tensor bias = tensor_of<float>({0, 1, 2, 3});
  steer(bias, tensor_of<double>({4, 1, 2.5, 2.5}), 0.5);
  CHECK(identical(bias, tensor_of<float>({-0.5f, 1.5f, 2, 3})));
  CHECK_THROWS_AS(steer(bias, tensor_of<double>({1, 2}), 0.5), Error);
}

GPU_CASE("selection: a GPU sees the same scores with bias and groups") {
  for (const auto& [T, E] : {std::pair{1, 12}, {37, 12}, {5, 72}, {0, 12}})
    for (const bool biased : {false, true})
      for (const PerToken rule : {PerToken{1}, PerToken{2, 4, 1}, PerToken{5, 3, 2, GroupScore::top2},
                                  PerToken{6, 6, 3, GroupScore::top2}, PerToken{2, 12, 2}, PerToken{3, 2, 2}}) {
        if (!biased && rule.groups == 0) continue;
        CAPTURE(T);
        CAPTURE(E);
        CAPTURE(rule.groups);
        const Tensor scores = tied({T, E}, 1), bias = biased ? tied({E}, 2) : Tensor(),
                     here(scores.shape(), DType::f32), on_gpu(scores.shape(), DType::f32, device_of_case());
        run<ChoiceScores>(Device(), here, scores, bias, rule);
        for (const uint64_t order : {0, 1, 2}) {
          const ThreadOrder changed(order);
          run<ChoiceScores>(device_of_case(), on_gpu, there(scores), there(bias), rule);
          CHECK(identical(on_gpu, here));
        }
      }
}

GPU_CASE("selection: a GPU gives every token the same experts") {
  for (const bool biased : {false, true})
    for (const PerToken rule : {PerToken{1}, PerToken{3}, PerToken{12}, PerToken{2, 4, 1},
                                PerToken{5, 3, 2, GroupScore::top2}, PerToken{12, 3, 3}}) {
      CAPTURE(rule.k);
      CAPTURE(rule.groups);
      const Tensor scores = tied({37, 12}, 5), bias = biased ? tied({12}, 2) : Tensor(), on_gpu = there(scores),
                   bias_there = there(bias);
      const auto before = crossings();
      const Selection chosen = select_per_token(on_gpu, bias_there, rule);
      CHECK_NOTHROW(check_scores(on_gpu, {}));
      CHECK(crossings().to_device == before.to_device);
      CHECK(crossings().to_host == before.to_host);
      check_same(chosen, select_per_token(scores, bias, rule));
      // Whatever the scores, a token gets k different experts.
      const Lists any = lists(select_per_token(tied({37, 12}, 5, true), {}, {.k = rule.k}));
      const Selection of_any = select_per_token(there(tied({37, 12}, 5, true)), bias_there, rule);
      for (std::vector<int32_t> experts : lists({on_host(of_any.expert), on_host(of_any.token_offsets)})) {
        REQUIRE(int64_t(experts.size()) == rule.k);
        std::ranges::sort(experts);
        CHECK(std::ranges::adjacent_find(experts) == experts.end());
        CHECK((experts.front() >= 0 && experts.back() < 12));
      }
      if (!biased && rule.groups == 0) CHECK(lists({on_host(of_any.expert), on_host(of_any.token_offsets)}) == any);
    }
}

GPU_CASE("selection: a GPU drops the same pairs over capacity") {
  for (const std::vector<int32_t>& scopes : {std::vector<int32_t>{0, 24}, {0, 7, 7, 8, 24}, {0, 1}, {0, 0}})
    for (const int64_t E : {1, 5})
      for (const int64_t k : {int64_t(1), int64_t(2), E}) {
        if (k > E) continue;
        const Tensor scores = tied({scopes.back(), E}, 3);
        const Selection chosen = select_per_token(scores, {}, {.k = k});
        const Selection on_gpu{there(chosen.expert), there(chosen.token_offsets)};
        const Tensor scores_there = there(scores), scopes_there = there(tensor_of(scopes));
        for (const Drop rule : {Drop::position, Drop::score})
          for (const double factor : {0.0, 0.1, 1.0, 1.25, 1e30}) {
            CAPTURE(scopes.size());
            CAPTURE(k);
            CAPTURE(factor);
            if (factor > 1e9 && scopes.size() > 2) continue;  // beyond what the CPU's size_t takes
            const Kept here = drop_over_capacity(chosen, scores, tensor_of(scopes), k, std::min(factor, 1e9), rule);
            for (const uint64_t order : {0, 2}) {
              const ThreadOrder changed(order);
              const auto before = crossings();
              const Kept kept = drop_over_capacity(on_gpu, scores_there, scopes_there, k, factor, rule);
              CHECK(crossings().to_host == before.to_host);
              check_same(kept.selection, here.selection);
              CHECK(identical(kept.pair, here.pair));
            }
          }
      }
}

GPU_CASE("selection: a GPU drops something valid where scores are NaN") {
  const Tensor scores = tied({24, 5}, 3, true);
  const Selection chosen = select_per_token(scores, {}, {.k = 2});
  const Kept kept = drop_over_capacity({there(chosen.expert), there(chosen.token_offsets)}, there(scores),
                                       there(tensor_of<int32_t>({0, 24})), 2, 0.5, Drop::score);
  std::vector<int> load(5), wanted(5);
  const Tensor expert = on_host(kept.selection.expert);
  for (int32_t e : expert.data<int32_t>())
    if (e >= 0) ++load[size_t(e)];
  for (int32_t e : chosen.expert.data<int32_t>()) ++wanted[size_t(e)];
  for (size_t e = 0; e < 5; ++e) CHECK(load[e] == std::min(wanted[e], 5));  // ceil(0.5 * 2 * 24 / 5)
}

GPU_CASE("selection: a GPU finds the first choices and steers the bias") {
  for (const int64_t T : {0, 1, 300}) {
    const RandomPairs pairs = random_pairs(T, 6, 4, 3);
    const auto before = crossings();
    const Tensor expert = there(pairs.expert), offsets = there(pairs.token_offsets);
    check_same(first_choices(expert, offsets), first_choices(pairs.expert, pairs.token_offsets));
    CHECK(crossings().to_device == before.to_device + 2);
  }
  const Tensor here = random({200}, 1, 1, DType::f32), counts = random({200}, 2, 100), bias = there(here);
  for (int64_t e = 0; e < 9; ++e) counts.data<double>()[e] = std::floor(counts.data<double>()[e]);
  const Tensor steered = clone(here);
  steer(steered, counts, 1e-3);
  steer(bias, there(counts), 1e-3);
  CHECK(identical(bias, steered));
}
