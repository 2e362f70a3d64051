#include <doctest/doctest.h>

#include <cmath>

#include "moe/losses.h"
#include "moe/statistics.h"
#include "ops/elementwise.h"
#include "tests/moe/options.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Gated {
  std::unique_ptr<Router> router;
  Parameter* gate = nullptr;
  Tensor* bias = nullptr;
};

Gated make(const Settings& settings, int64_t width, int64_t experts, Precision precision = Precision::f64()) {
  Gated made{router_options("token_choice", settings)->make({width, experts, precision, 0.5})};
  each_part(*made.router, [&]<class P>(const std::string& name, P& part) {
    if constexpr (std::is_same_v<P, Parameter>) {
      if (name == "gate") made.gate = &part;
    } else if (name == "bias")
      made.bias = &part;
  });
  REQUIRE(made.gate);
  REQUIRE(made.bias);
  fill_normal(made.gate->master, {3, 3}, 1);
  made.gate->refresh();
  return made;
}

/// x is the identity, so that logits[t, e] = gate[e, t] and the gate's gradient is that of the logits, transposed.
Tensor identity(int64_t n) {
  Tensor x({n, n}, DType::f64);
  x.zero();
  for (int64_t i = 0; i < n; ++i) x.data<double>()[i * n + i] = 1;
  return x;
}

using Matrix = std::vector<std::vector<double>>;

Matrix logits_of(const Gated& r, int64_t T, int64_t E) {
  Matrix z(static_cast<size_t>(T), std::vector<double>(static_cast<size_t>(E)));
  for (int64_t t = 0; t < T; ++t)
    for (int64_t e = 0; e < E; ++e) z[size_t(t)][size_t(e)] = r.gate->value.data<double>()[e * T + t];
  return z;
}

double worst_difference(const Parameter& gate, const Matrix& dz) {
  const int64_t T = int64_t(dz.size()), E = int64_t(dz[0].size());
  double worst = 0;
  for (int64_t t = 0; t < T; ++t)
    for (int64_t e = 0; e < E; ++e)
      worst = std::max(worst, std::abs(gate.grad.data<double>()[e * T + t] - dz[size_t(t)][size_t(e)]));
  return worst;
}

std::vector<double> softmax_of(const std::vector<double>& z) {
  std::vector<double> p;
  double sum = 0;
  for (double v : z) sum += std::exp(v);
  for (double v : z) p.push_back(std::exp(v) / sum);
  return p;
}

}  // namespace

TEST_CASE("token_choice: gradients of the weights by the formulas, softmax and sigmoid, raw and renormalised") {
  const int64_t T = 9, E = 5, k = 3;
  for (const char* score : {"softmax", "sigmoid"})
    for (const char* norm : {"none", "topk"})
      for (const double factor : {1.0, 2.5}) {
        CAPTURE(score);
        CAPTURE(norm);
        const bool sigmoidal = score == std::string("sigmoid"), topk = norm == std::string("topk");
        const Gated r = make(
            {{"k", double(k)}, {"score", score}, {"norm", norm}, {"scale", factor}, {"balance_coefficient", 0}}, T, E);
        const Tensor x = identity(T), direction = random({T * k}, 41);
        Parameter* all[] = {r.gate};
        r.gate->has_grad = false;
        Tape tape(all);
        const Pairs pairs = r.router->select(x, {});
        tape.backward(probe(pairs.weight, 41));

        const Matrix z = logits_of(r, T, E);
        Matrix dz(size_t(T), std::vector<double>(size_t(E), 0.0));
        for (size_t t = 0; t < size_t(T); ++t) {
          std::vector<double> s = softmax_of(z[t]),
                              gap(static_cast<size_t>(E));  // gap: dL/dw at the chosen experts, 0 elsewhere
          std::vector<bool> in(static_cast<size_t>(E));
          if (sigmoidal)
            for (size_t e = 0; e < size_t(E); ++e) s[e] = 1 / (1 + std::exp(-z[t][e]));
          double A = 0, m = 0, inner = 0;
          for (size_t j = 0; j < size_t(k); ++j) {
            const auto e = size_t(pairs.expert.data<int32_t>()[t * size_t(k) + j]);
            in[e] = true;
            gap[e] = direction.data<double>()[t * size_t(k) + j];
            A += s[e];
          }
          for (size_t e = 0; e < size_t(E); ++e) {
            m += factor * s[e] / A * gap[e];
            inner += s[e] * factor * gap[e];
          }
          for (size_t e = 0; e < size_t(E); ++e) {
            if (!topk)
              dz[t][e] = sigmoidal ? factor * gap[e] * s[e] * (1 - s[e]) : s[e] * (factor * gap[e] - inner);
            else if (in[e])
              dz[t][e] = sigmoidal ? (factor * gap[e] - m) / A * s[e] * (1 - s[e]) : s[e] / A * (factor * gap[e] - m);
          }
          for (size_t j = 0; j < size_t(k); ++j) {
            const size_t i = t * size_t(k) + j;
            const double own = s[size_t(pairs.expert.data<int32_t>()[i])];
            CHECK(pairs.weight.data<double>()[i] == doctest::Approx(factor * (topk ? own / A : own)));
          }
        }
        CHECK(worst_difference(*r.gate, dz) < 1e-14);
      }
}

TEST_CASE("token_choice: gradients of balance and z-loss by the formulas") {
  const int64_t T = 7, E = 4, k = 2;
  const Gated r = make({{"k", double(k)}, {"balance_coefficient", 0.3}, {"z_coefficient", 0.2}}, T, E);
  Parameter* all[] = {r.gate};
  r.gate->has_grad = false;
  Tape tape(all);
  const Pairs pairs = r.router->select(identity(T), {});
  const Losses losses = r.router->weigh(pairs, {}, {}, {}).losses;
  REQUIRE(losses.size() == 2);
  tape.backward(add(scale(losses[0].value, losses[0].coefficient), scale(losses[1].value, losses[1].coefficient)));

  const Matrix z = logits_of(r, T, E);
  std::vector<double> f(static_cast<size_t>(E));
  for (int32_t e : pairs.expert.data<int32_t>()) f[size_t(e)] += 1. / double(k * T);
  Matrix dz(static_cast<size_t>(T), std::vector<double>(static_cast<size_t>(E)));
  for (size_t t = 0; t < size_t(T); ++t) {
    const std::vector<double> p = softmax_of(z[t]);
    double inner = 0, sum = 0;
    for (size_t e = 0; e < size_t(E); ++e) {
      inner += p[e] * 0.3 * double(E) * f[e] / double(T);
      sum += std::exp(z[t][e]);
    }
    for (size_t e = 0; e < size_t(E); ++e)
      dz[t][e] = p[e] * (0.3 * double(E) * f[e] / double(T) - inner) + 0.2 * 2 * std::log(sum) * p[e] / double(T);
  }
  CHECK(worst_difference(*r.gate, dz) < 1e-14);
}

TEST_CASE("token_choice: the balance loss of a router that cannot tell experts apart is 1") {
  for (const char* score : {"softmax", "sigmoid"})
    for (const char* scope : {"batch", "sequence", "global"}) {
      Gated r = make({{"k", 2}, {"score", score}, {"balance_scope", scope}}, 3, 4);
      fill(r.gate->value, 0);
      const Pairs pairs = r.router->select(random({6, 3}, 1), {});
      CHECK(r.router->weigh(pairs, {}, {}, {}).losses[0].value.item() == doctest::Approx(1));
    }
}

TEST_CASE("token_choice: the bias moves loads towards the mean and changes no weight of an unchanged selection") {
  const int64_t T = 400, D = 6, E = 8;
  const Gated r = make({{"k", 2}, {"score", "sigmoid"}, {"norm", "topk"}, {"bias_rate", 0.01}}, D, E);
  const Tensor x = random({T, D}, 5);
  const Pairs first = r.router->select(x, {});
  const auto imbalance = [&](const Pairs& pairs) { return describe(pairs, pairs.scores).scalars().at("load_max"); };
  const double before = imbalance(first);
  for (int step = 0; step < 60; ++step) {
    const Pairs pairs = r.router->select(x, {});
    const Tensor load = describe(pairs, pairs.scores).chosen, bias = clone(*r.bias);
    r.router->after_step({load, {}, nullptr});
    for (size_t e = 0; e < size_t(E); ++e) {
      const double moved = r.bias->data<double>()[e] - bias.data<double>()[e],
                   excess = load.data<double>()[e] - double(2 * T) / double(E);
      CHECK(moved == doctest::Approx(excess > 0 ? -0.01 : excess < 0 ? 0.01 : 0));
    }
  }
  const Pairs last = r.router->select(x, {});
  CHECK(before > 1.3);
  CHECK(imbalance(last) < 1.12);
  int unchanged = 0;
  for (size_t t = 0; t < size_t(T); ++t) {
    const auto at = [&](const Pairs& p, size_t j) { return p.expert.data<int32_t>()[2 * t + j]; };
    for (const auto& [a, b] : {std::pair<size_t, size_t>{0, 1}, {1, 0}})
      if (at(first, 0) == at(last, a) && at(first, 1) == at(last, b)) {
        ++unchanged;
        CHECK(first.weight.data<double>()[2 * t] == last.weight.data<double>()[2 * t + a]);
      }
  }
  CHECK(unchanged > 100);
  CHECK(unchanged < T);

  const Gated still = make({{"k", 2}}, D, E);
  still.router->after_step({tensor_of<double>({9, 0, 0, 0, 0, 0, 0, 0}), {}, nullptr});
  for (double b : still.bias->data<double>()) CHECK(b == 0);
}

TEST_CASE("token_choice: jitter and capacity act in training only, jitter belongs to the global row") {
  const Gated r = make({{"k", 2}, {"jitter", 0.2}, {"capacity_factor", 0.5}}, 5, 4), plain = make({{"k", 2}}, 5, 4);
  const Tensor x = random({8, 5}, 1);
  RouterContext context;
  context.seed = 4;
  const Pairs train = r.router->select(x, context), again = r.router->select(x, context),
              calm = plain.router->select(x, context);
  CHECK(identical(train.logits, again.logits));
  CHECK(!identical(train.logits, calm.logits));
  CHECK(relative_error(train.logits, calm.logits) < 0.3);
  CHECK(train.token_offsets.data<int32_t>()[8] <= 8);
  CHECK(train.chosen_offsets.data<int32_t>()[8] == 16);
  for (const Mode mode : {Mode::eval, Mode::eval_noncausal}) {
    RouterContext evaluation = context;
    evaluation.mode = mode;
    const Pairs pairs = r.router->select(x, evaluation);
    CHECK(identical(pairs.logits, calm.logits));
    CHECK(identical(pairs.weight, calm.weight));
    CHECK(pairs.token_offsets.data<int32_t>()[8] == 16);
  }
  RouterContext second_half = context;
  second_half.first_row = 4;
  CHECK(identical(r.router->select(slice(x, 4, 8), second_half).logits, slice(train.logits, 4, 8)));
  for (auto change : {+[](RouterContext& c) { ++c.step; }, +[](RouterContext& c) { ++c.layer; },
                      +[](RouterContext& c) { ++c.seed; }, +[](RouterContext& c) { ++c.first_row; }}) {
    RouterContext other = context;
    change(other);
    CHECK(!identical(r.router->select(x, other).logits, train.logits));
  }
}

TEST_CASE("token_choice: weights are not renormalised after dropping, counts of the losses are those before") {
  const Settings settings{
      {"k", 2}, {"norm", "topk"}, {"capacity_factor", 0.5}, {"drop", "score"}, {"balance_coefficient", 1}};
  const Gated r = make(settings, 5, 4), roomy = make({{"k", 2}, {"norm", "topk"}, {"balance_coefficient", 1}}, 5, 4);
  const Tensor x = random({12, 5}, 1);
  const Pairs dropped = r.router->select(x, {}), all = roomy.router->select(x, {});
  const auto offset = dropped.token_offsets.data<const int32_t>();
  CHECK(offset[12] < 24);
  for (int32_t t = 0; t < 12; ++t)
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) {
      const bool second = all.expert.data<int32_t>()[2 * t] != dropped.expert.data<int32_t>()[i];
      CHECK(dropped.weight.data<double>()[i] == all.weight.data<double>()[2 * t + second]);
    }
  const Weighed a = r.router->weigh(dropped, {}, {}, {}), b = roomy.router->weigh(all, {}, {}, {});
  CHECK(a.losses[0].value.item() == b.losses[0].value.item());
  CHECK(a.statistics.scalars().at("dropped") == doctest::Approx(1 - offset[12] / 24.));
  CHECK(identical(a.statistics.chosen, b.statistics.load));
}

TEST_CASE("token_choice: the gate stays in f32 under bf16, NaN is an error") {
  const Gated r = make({{"k", 2}}, 5, 4, Precision::bf16());
  CHECK(r.gate->value.dtype() == DType::f32);
  const Tensor x = random({6, 5}, 1, 1, DType::bf16);
  const Pairs pairs = r.router->select(x, {});
  CHECK(pairs.logits.dtype() == DType::f32);
  CHECK(pairs.weight.dtype() == DType::f32);
  x.data<bf16>()[7] = bf16(std::nanf(""));
  RouterContext context;
  context.layer = 2;
  context.step = 9;
  CHECK_THROWS_WITH_AS(r.router->select(x, context), doctest::Contains("layer 2 at step 10 are NaN, first for token 1"),
                       Error);
}

TEST_CASE("token_choice: one token, one expert, all experts, no token") {
  for (const auto& [T, E, k] : {std::tuple{1, 4, 2}, {5, 1, 1}, {5, 3, 3}, {0, 3, 2}}) {
    const Gated r = make({{"k", double(k)}, {"z_coefficient", 1}, {"entropy_coefficient", 1}}, 5, E);
    const Pairs pairs = r.router->select(random({T, 5}, 1), {});
    CHECK(pairs.token_offsets.data<int32_t>()[T] == T * k);
    const Weighed weighed = r.router->weigh(pairs, {}, {}, {});
    for (const Loss& loss : weighed.losses) CHECK(std::isfinite(loss.value.item()));
    for (const auto& [name, value] : weighed.statistics.scalars()) CHECK(std::isfinite(value));
    if (E == k)
      for (int t = 0; t < T; ++t) {
        double sum = 0;
        for (int j = 0; j < k; ++j) sum += pairs.weight.data<double>()[t * k + j];
        CHECK(sum == doctest::Approx(1));
      }
  }
}

TEST_CASE("token_choice: refuses what cannot work, and says why") {
  const auto refuses = [](const Settings& settings, const char* reason) {
    CAPTURE(reason);
    CHECK_THROWS_WITH_AS(router_options("token_choice", settings)->validate(8), doctest::Contains(reason), UserError);
  };
  CHECK_NOTHROW(router_options("token_choice", {})->validate(8));
  refuses({{"k", 9}}, "k = 9, but there are 8 experts");
  refuses({{"k", 1.5}}, "whole number of experts");
  refuses({{"k", 1}, {"norm", "topk"}}, "no gradient from the task");
  refuses({{"k", 1}, {"norm", "topk"}, {"score", "sigmoid"}}, "no gradient from the task");
  refuses({{"groups", 3}, {"groups_kept", 1}}, "8 experts do not form equal groups");
  refuses({{"groups", 4}}, "groups_kept = 0, expected 1 to 4");
  refuses({{"groups", 4}, {"groups_kept", 5}}, "groups_kept = 5, expected 1 to 4");
  refuses({{"groups", 4}, {"groups_kept", 1}, {"k", 3}}, "do not hold moe.router.k = 3");
  refuses({{"groups", 8}, {"groups_kept", 2}, {"group_score", "top2"}}, "one expert in a group");
  refuses({{"groups_kept", 1}}, "without moe.router.groups");
  CHECK_NOTHROW(router_options("token_choice", {{"k", 1}})->validate(1));
  CHECK_NOTHROW(router_options("token_choice", {{"groups", 4}, {"groups_kept", 2}, {"k", 4}, {"group_score", "top2"}})
                    ->validate(8));
  CHECK_THROWS_AS(router_options("token_choice", {{"k", 9}})->make({4, 8, {}, 1}), UserError);
}
