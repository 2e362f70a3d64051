// Properties of the strategies that ROUTING.md section 8 names, through whole layers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "moe/selection.h"
#include "moe/thresholds.h"
#include "ops/linear.h"
#include "ops/softmax.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 12, kExperts = 4;

struct Made {
  std::unique_ptr<Communicator> comm = make_self_communicator();
  MoeLayer layer;

  Made(const std::string& strategy, const Settings& settings, int64_t experts = kExperts,
       Precision precision = Precision::f64())
      : layer(layer_options(experts, "gelu", true), *router_options(strategy, settings), kWidth, precision,
              {0.8, 0.6, 0.6}, *comm) {
    fill_parameters(layer, 3);
  }
  const Parameter& gate() {
    const Parameter* found = nullptr;
    each_parameter(layer, [&](const std::string& name, Parameter& p) { found = name == "router.gate" ? &p : found; });
    return *found;
  }
  /// Every expert's answers: [T, E, D] as a list of [T, D].
  std::vector<Tensor> answers(const Tensor& x) {
    std::vector<Tensor> all;
    const int64_t E = layer.experts().experts();
    for (int64_t e = 0; e < E; ++e) {
      std::vector<int32_t> offsets(size_t(E) + 1, 0);
      std::fill(offsets.begin() + e + 1, offsets.end(), int32_t(x.shape(0)));
      all.push_back(layer.experts()(x, tensor_of(offsets)));
    }
    return all;
  }
  /// Σ_e share[t, e] · answer.
  Tensor mixture(const Tensor& x, const Tensor& share) {
    const std::vector<Tensor> all = answers(x);
    Tensor sum;
    for (size_t e = 0; e < all.size(); ++e) {
      Tensor column({x.shape(0)}, DType::f64);
      for (int64_t t = 0; t < x.shape(0); ++t)
        column.data<double>()[t] = share.data<double>()[t * int64_t(all.size()) + int64_t(e)];
      const Tensor part = scale_rows(all[e], column);
      sum = sum ? add(sum, part) : part;
    }
    return sum;
  }
};

struct Named {
  const char* strategy;
  Settings settings;
};

/// The strategies, and settings under which they stay within the bounds of small tests.
std::vector<Named> strategies() {
  return {{"token_choice", {}},
          {"expert_choice", {}},
          {"competition", {}},
          {"unified", {}},
          {"composed", {{"score", "sigmoid"}, {"selection", "global"}, {"weight", "over_selected"}}},
          {"composed_answers", {{"selection", "per_expert"}, {"weight", "over_all"}}}};
}

RouterContext in(Mode mode, bool compete = false) {
  RouterContext c;
  c.mode = mode;
  c.compete = compete;
  return c;
}

/// Thresholds as one step over x teaches them.
void learn(MoeLayer& layer, const Tensor& x) {
  const auto self = make_self_communicator();
  const LayerOutput out = layer(x, {});
  layer.router().after_step({out.statistics.chosen, {out.statistics.candidates}, self.get()});
}

bool same_row(const Tensor& a, const Tensor& b, int64_t t) {
  const int64_t row = a.bytes() / a.shape(0);
  return std::memcmp(static_cast<const char*>(a.address()) + t * row, static_cast<const char*>(b.address()) + t * row,
                     size_t(row)) == 0;
}

}  // namespace

TEST_CASE("strategies: with every expert chosen they are the dense mixture") {
  const Tensor x = random({kTokens, kWidth}, 1);
  for (const Named& n : {Named{"token_choice", {{"k", kExperts}}}, Named{"expert_choice", {{"k", kExperts}}},
                         Named{"unified", {{"k", kExperts}, {"alpha", 0}}}}) {
    CAPTURE(std::string(n.strategy));
    Made m(n.strategy, n.settings);
    CHECK(relative_error(m.layer(x, {}).y, m.mixture(x, softmax(linear(x, m.gate())))) < 1e-14);
  }
  Made m("competition", {{"k", kExperts}});
  const std::vector<Tensor> answers = m.answers(x);
  Tensor share({kTokens, kExperts}, DType::f64);
  for (int64_t t = 0; t < kTokens; ++t) {
    double sum = 0;
    for (int64_t e = 0; e < kExperts; ++e) {
      double a = 0;
      for (int64_t d = 0; d < kWidth; ++d)
        a += std::log1p(std::exp(answers[size_t(e)].data<double>()[t * kWidth + d])) / double(kWidth);
      sum += share.data<double>()[t * kExperts + e] = a;
    }
    for (int64_t e = 0; e < kExperts; ++e) share.data<double>()[t * kExperts + e] /= sum;
  }
  CHECK(relative_error(m.layer(x, in(Mode::train, true)).y, m.mixture(x, share)) < 1e-13);
}

TEST_CASE("strategies: unified with one token is token choice on the same scores") {
  Made m("unified", {{"k", 2}, {"alpha", 0.3}});
  for (uint64_t seed = 1; seed < 20; ++seed) {
    Decision d;
    m.layer(random({1, kWidth}, seed), {}, &d);
    const Selection s = select_per_token(d.pairs.scores, {}, {.k = 2});
    CHECK(identical(s.expert, d.pairs.expert));
  }
}

TEST_CASE("strategies: permuting the tokens within a scope permutes the result, twice the same bits") {
  for (const Named& n : strategies())
    for (const bool compete : {false, true}) {
      CAPTURE(std::string(n.strategy));
      Made m(n.strategy, n.settings, kExperts, Precision::fp32());
      const Tensor x = random({kTokens, kWidth}, 6, 1, DType::f32), reversed(x.shape(), x.dtype());
      for (int64_t t = 0; t < kTokens; ++t)
        std::copy_n(x.data<float>().begin() + t * kWidth, kWidth,
                    reversed.data<float>().begin() + (kTokens - 1 - t) * kWidth);
      const RouterContext context = in(Mode::train, compete);
      const Tensor y = m.layer(x, context).y, z = m.layer(reversed, context).y;
      CHECK(identical(y, m.layer(x, context).y));
      for (int64_t t = 0; t < kTokens; ++t)
        CHECK(std::equal(y.data<float>().begin() + t * kWidth, y.data<float>().begin() + (t + 1) * kWidth,
                         z.data<float>().begin() + (kTokens - 1 - t) * kWidth));
    }
}

TEST_CASE("strategies: in causal evaluation no other token's output moves by a bit, elsewhere some do") {
  for (const Named& n : strategies()) {
    CAPTURE(std::string(n.strategy));
    Made m(n.strategy, n.settings, kExperts, Precision::fp32());
    const Tensor x = random({kTokens, kWidth}, 6, 1, DType::f32), changed = clone(x);
    learn(m.layer, random({200, kWidth}, 7, 1, DType::f32));
    for (int64_t d = 0; d < kWidth; ++d) changed.data<float>()[5 * kWidth + d] = float(d) - 2;
    const auto moved = [&](Mode mode) {
      const Tensor before = m.layer(x, in(mode)).y, after = m.layer(changed, in(mode)).y;
      CHECK_FALSE(same_row(before, after, 5));
      int64_t others = 0;
      for (int64_t t = 0; t < kTokens; ++t) others += t != 5 && !same_row(before, after, t);
      return others;
    };
    CHECK(moved(Mode::eval) == 0);
    if (!m.layer.router().thresholds()) CHECK(moved(Mode::eval_noncausal) == 0);
    // Each token by itself gives what the whole text gives: what generation with a cache relies on.
    const Tensor whole = m.layer(x, in(Mode::eval)).y;
    for (int64_t t = 0; t < kTokens; ++t) {
      const Tensor alone = m.layer(slice(x, t, t + 1), in(Mode::eval)).y;
      CHECK(
          std::equal(alone.data<float>().begin(), alone.data<float>().end(), whole.data<float>().begin() + t * kWidth));
    }
  }
  // Tokens that compete see each other: somewhere a budget moves.
  for (const char* strategy : {"expert_choice", "unified"}) {
    int64_t others = 0;
    for (uint64_t seed = 1; seed < 10; ++seed) {
      Made m(strategy, {{"k", 1}}, kExperts, Precision::fp32());
      const Tensor x = random({kTokens, kWidth}, seed, 1, DType::f32), changed = clone(x);
      for (int64_t d = 0; d < kWidth; ++d) changed.data<float>()[5 * kWidth + d] *= -4;
      const Tensor before = m.layer(x, in(Mode::eval_noncausal)).y,
                   after = m.layer(changed, in(Mode::eval_noncausal)).y;
      for (int64_t t = 0; t < kTokens; ++t) others += t != 5 && !same_row(before, after, t);
    }
    CHECK(others > 0);
  }
}

TEST_CASE("strategies: learned thresholds realise the budget on text like that of the training") {
  for (const char* strategy : {"expert_choice", "unified"}) {
    CAPTURE(std::string(strategy));
    Made m(strategy, {{"k", 1.5}, {"threshold_decay", 0.9}});
    CHECK_THROWS_WITH_AS(m.layer(random({4, kWidth}, 1), in(Mode::eval)), doctest::Contains("no thresholds"),
                         UserError);
    for (uint64_t step = 0; step < 60; ++step) learn(m.layer, random({100, kWidth}, 100 + step));
    const double k = m.layer(random({4000, kWidth}, 9), in(Mode::eval)).statistics.scalars().at("experts_per_token");
    CHECK(k == doctest::Approx(1.5).epsilon(0.05));
  }
}

TEST_CASE("strategies: one token, one expert, all experts, no token, tokens and experts nobody chose") {
  for (const Named& n : strategies())
    for (const auto& [tokens, experts, k] :
         {std::tuple{1, 4, 2}, {5, 1, 1}, {1, 1, 1}, {0, 4, 2}, {2, 40, 1}, {6, 3, 3}}) {
      if (k == 1 && n.settings.contains("weight") && std::string(n.strategy) == "composed") continue;  // refused
      for (const bool compete : {false, true}) {
        CAPTURE(std::string(n.strategy));
        CAPTURE(tokens);
        CAPTURE(experts);
        Settings settings = n.settings;
        settings.insert_or_assign("k", double(k));
        Made m(n.strategy, settings, experts);
        Parameter x({tokens, kWidth}, Precision::f64());
        copy(x.value, random({tokens, kWidth}, 1));
        std::vector<Parameter*> all = parameters(m.layer);
        all.push_back(&x);
        Tape tape(all);
        const LayerOutput out = m.layer(x, in(Mode::train, compete));
        CHECK(out.y.shape() == Shape{tokens, kWidth});
        tape.backward(total(out, 1, 0, tokens));
        for (const Parameter* p : all)
          for (double v : p->grad.data<double>()) CHECK(std::isfinite(v));
      }
    }
}

TEST_CASE("strategies: settings that starve the router or cannot be met are refused") {
  const auto refused = [](const char* strategy, const Settings& settings) {
    try {
      router_options(strategy, settings)->validate(4);
    } catch (const UserError& e) { return std::string(e.what()); }
    return std::string();
  };
  CHECK(refused("unified", {{"k", 1}, {"norm", "row_selected"}}).find("row_selected") != std::string::npos);
  CHECK(refused("unified", {{"k", 1.2}, {"norm", "row_selected"}}).empty());
  CHECK_FALSE(router_options("unified", {{"k", 1.2}, {"norm", "row_selected"}})->warning().empty());
  CHECK(router_options("unified", {{"k", 2}, {"norm", "row_selected"}})->warning().empty());
  CHECK_FALSE(router_options("unified", {{"expert_score", "softmax"}})->causal());
  for (const char* strategy :
       {"token_choice", "expert_choice", "unified", "competition", "composed", "composed_answers"}) {
    CHECK(refused(strategy, {{"k", 5}}).find("there are 4 experts") != std::string::npos);
    CHECK((router_options(strategy, {})->competition() != nullptr) ==
          (std::string(strategy) == "competition" || std::string(strategy) == "composed_answers"));
  }
  CHECK(refused("composed", {{"k", 1.5}}).find("whole number") != std::string::npos);
  CHECK(refused("composed", {{"k", 1}, {"weight", "over_selected"}}).find("no gradient") != std::string::npos);
  CHECK(refused("composed_answers", {{"k", 1}, {"weight", "over_selected"}}).empty());
  for (const Settings& without_effect :
       {Settings{{"alpha", 0.3}}, Settings{{"threshold_decay", 0.5}}, Settings{{"scope", "sequence"}},
        Settings{{"weight", "over_selected"}, {"selection", "global"}, {"k", 1.5}}})
    CHECK_FALSE(router_options("composed", without_effect)->warning().empty());
  CHECK(router_options("composed", {{"score", "unified"}, {"alpha", 0.3}})->warning().empty());
}

TEST_CASE("strategies: NaN scores are refused with layer and step, whoever makes them") {
  for (const Named& n : strategies()) {
    CAPTURE(std::string(n.strategy));
    Made m(n.strategy, n.settings);
    Tensor x = random({3, kWidth}, 1);
    x.data<double>()[kWidth] = std::nan("");
    RouterContext context;
    context.layer = 2;
    context.step = 4;
    CHECK_THROWS_WITH_AS(m.layer(x, context), doctest::Contains("layer 2 at step 5 are NaN, first for token 1"), Error);
  }
}
