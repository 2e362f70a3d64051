#include "moe/competition.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 9, kExperts = 6;

struct Competing {
  std::unique_ptr<Communicator> comm = make_self_communicator();
  MoeLayer layer;
  Parameter x{{kTokens, kWidth}, Precision::f64()};
  RouterContext context;

  explicit Competing(const Settings& settings, const char* activation = "swiglu")
      : layer(layer_options(kExperts, activation, true), *router_options("competition", settings), kWidth,
              Precision::f64(), {0.8, 0.6, 0.6}, *comm) {
    fill_parameters(layer, 11);
    copy(x.value, random({kTokens, kWidth}, 1));
    context.compete = true;
    context.sequence_offsets = tensor_of<int32_t>({0, 4, int32_t(kTokens)});
  }

  /// Gradients of what `of` makes of the layer's output.
  void backward(const std::function<Tensor(const LayerOutput&)>& of, Decision* decision = nullptr) {
    std::vector<Parameter*> all = parameters(layer);
    all.push_back(&x);
    for (Parameter* p : all) p->has_grad = false;
    Tape tape(all);
    tape.backward(of(layer(x, context, decision)));
  }
  Parameter& gate() {
    Parameter* found = nullptr;
    each_parameter(layer, [&](const std::string& name, Parameter& p) { found = name == "router.gate" ? &p : found; });
    return *found;
  }
};

Tensor loss_named(const LayerOutput& out, const std::string& name) {
  for (const Loss& loss : out.losses)
    if (loss.name == name) return loss.value;
  FAIL("no such loss");
  return {};
}

bool bitwise_zero(const Tensor& t) {
  return std::ranges::all_of(t.data<double>(), [](double v) { return v == 0 && !std::signbit(v); });
}

/// Whether the gradients of expert e's weights are exactly 0.
bool untouched(const ExpertGroup& experts, int64_t e) {
  for (const Parameter* p : {&experts.up, &experts.down, &experts.up_bias, &experts.down_bias}) {
    const Tensor of_expert = slice(p->grad, e, e + 1);
    if (!bitwise_zero(of_expert)) return false;
  }
  return true;
}

/// Gradient only of token t's output.
Tensor of_token(const LayerOutput& out, int64_t t) {
  const Tensor mask = Tensor(out.y.shape(), DType::f64).zero(), direction = random({kWidth}, 5);
  std::ranges::copy(direction.data<double>(), mask.data<double>().begin() + t * kWidth);
  return sum(multiply(out.y, mask));
}

std::vector<int64_t> winners(const Decision& d, int64_t t) {
  const auto offset = d.pairs.token_offsets.data<int32_t>(), expert = d.pairs.expert.data<int32_t>();
  return {expert.begin() + offset[t], expert.begin() + offset[t + 1]};
}

}  // namespace

TEST_CASE("competition: the loudest answers win, their weights are their shares") {
  for (const std::string& name : answer_score_names()) {
    CAPTURE(name);
    Competing c({{"score", name.c_str()}, {"k", 3}});
    Decision d;
    c.layer(c.x, c.context, &d);
    const Tensor a = all_answer_scores(c.x, c.layer.experts(), answer_score_named(name), 1 << 20, *c.comm, false);
    CHECK(identical(a, d.pairs.affinity));
    const auto at = [&](int64_t t, int64_t e) { return a.data<double>()[t * kExperts + e]; };
    for (int64_t t = 0; t < kTokens; ++t) {
      const auto won = winners(d, t);
      REQUIRE(won.size() == 3);
      double sum = 0;
      const bool exponential = name == "silu_mean";
      for (int64_t e : won) sum += exponential ? std::exp(at(t, e)) : at(t, e);
      for (size_t i = 0; i < won.size(); ++i) {
        const double share = (exponential ? std::exp(at(t, won[i])) : at(t, won[i])) / sum;
        CHECK(d.weight.data<double>()[3 * t + int64_t(i)] == doctest::Approx(share).epsilon(1e-12));
        for (int64_t e = 0; e < kExperts; ++e)
          if (std::ranges::find(won, e) == won.end()) CHECK(at(t, e) <= at(t, won[i]));
      }
    }
  }
}

TEST_CASE("competition: the paths that carry no gradient are exactly zero") {
  Competing c({{"balance_coefficient", 0.5}, {"diversity_coefficient", 0.5}});
  ExpertGroup& experts = c.layer.experts();
  Decision d;
  for (int64_t t = 0; t < kTokens; ++t) {
    CAPTURE(t);
    c.backward([&](const LayerOutput& out) { return of_token(out, t); }, &d);
    CHECK(bitwise_zero(c.gate().grad));  // task -> router
    const auto won = winners(d, t);
    for (int64_t e = 0; e < kExperts; ++e)  // task -> losers' experts
      CHECK(untouched(experts, e) == (std::ranges::find(won, e) == won.end()));
    for (int64_t other = 0; other < kTokens; ++other)  // -> the other tokens
      CHECK(bitwise_zero(slice(c.x.grad, other, other + 1)) == (other != t));
  }
  c.backward([](const LayerOutput& out) { return loss_named(out, "router"); });
  CHECK_FALSE(bitwise_zero(c.gate().grad));
  CHECK_FALSE(bitwise_zero(c.x.grad));
  for (int64_t e = 0; e < kExperts; ++e) CHECK(untouched(experts, e));  // L_router -> experts
  for (const char* loss : {"diversity", "balance"}) {
    c.backward([&](const LayerOutput& out) { return loss_named(out, loss); });
    CHECK(bitwise_zero(c.gate().grad));
  }
}

TEST_CASE("competition: losers get the balance loss's gradient only if asked") {
  for (const bool losers : {false, true}) {
    CAPTURE(losers);
    Competing c({{"loser_gradient", losers}, {"k", 1}, {"balance_coefficient", 1}});
    // Expert 0 answers nothing at all, so that it wins nowhere.
    for (Parameter* p : {&c.layer.experts().down, &c.layer.experts().down_bias}) {
      const int64_t each = p->value.size() / kExperts;
      std::fill_n(p->value.data<double>().begin(), each, 0.0);
    }
    std::fill_n(c.layer.experts().down_bias.value.data<double>().begin(), kWidth, -3.0);
    Decision d;
    c.backward([](const LayerOutput& out) { return loss_named(out, "balance"); }, &d);
    for (int64_t t = 0; t < kTokens; ++t) REQUIRE(winners(d, t) != std::vector<int64_t>{0});
    CHECK(untouched(c.layer.experts(), 0) == !losers);
    c.backward([](const LayerOutput& out) { return sum(out.y); });
    CHECK(untouched(c.layer.experts(), 0));
    c.backward([](const LayerOutput& out) { return loss_named(out, "router"); });
    for (int64_t e = 0; e < kExperts; ++e) CHECK(untouched(c.layer.experts(), e));
  }
}

TEST_CASE("competition: between the contests, and always in evaluation, the router decides") {
  Competing c({{"k", 2}});
  for (const Mode mode : {Mode::train, Mode::eval, Mode::eval_noncausal}) {
    c.context.mode = mode;
    c.context.compete = mode != Mode::train;  // evaluation ignores a verdict
    Decision d;
    const LayerOutput out = c.layer(c.x, c.context, &d);
    CHECK_FALSE(d.pairs.affinity);
    REQUIRE(out.losses.size() == 1);
    CHECK(out.losses[0].name == "balance");
    CHECK(out.losses[0].coefficient == 0.01);
    CHECK_FALSE(out.statistics.scalars().contains("agreement"));
    for (int64_t t = 0; t < kTokens; ++t) {
      double sum = 0;
      for (int64_t e : winners(d, t)) sum += d.pairs.scores.data<double>()[t * kExperts + e];
      for (size_t i = 0; i < 2; ++i)
        CHECK(d.weight.data<double>()[2 * t + int64_t(i)] ==
              doctest::Approx(d.pairs.scores.data<double>()[t * kExperts + winners(d, t)[i]] / sum).epsilon(1e-13));
    }
    double counted = 0;
    for (double n : out.statistics.chosen.data<double>()) counted += n;
    CHECK(counted == kTokens);  // first choices
  }
}

TEST_CASE("competition: a router that knows the answers agrees with them, and one expert needs no contest") {
  Competing c({{"k", 2}});
  const LayerOutput out = c.layer(c.x, c.context);
  CHECK(out.statistics.scalars().at("agreement") >= 0);
  CHECK(out.statistics.scalars().at("agreement") < 1);
  CHECK(out.statistics.scalars().at("affinity_kl") > 0);
  Competing all({{"k", double(kExperts)}});
  CHECK(all.layer(all.x, all.context).statistics.scalars().at("agreement") == 1);
  Competing single({{"k", 1}});
  const LayerOutput one = single.layer(single.x, single.context);
  CHECK(loss_named(one, "diversity").item() == 0);
}

TEST_CASE("competition: NaN answers and logits are refused with layer and step") {
  Competing c({});
  c.context.layer = 3;
  c.context.step = 6;
  c.layer.experts().down.value.data<double>()[0] = std::nan("");
  CHECK_THROWS_WITH_AS(c.layer(c.x, c.context), doctest::Contains("layer 3 at step 7 are NaN"), Error);
  Competing d({});
  d.gate().value.data<double>()[0] = std::nan("");
  CHECK_THROWS_WITH_AS(d.layer(d.x, d.context), doctest::Contains("layer 0 at step 1 are NaN"), Error);
}

TEST_CASE("competition: settings that make no sense are refused") {
  const auto make = [](const Settings& s) { router_options("competition", s)->validate(4); };
  CHECK_NOTHROW(make({{"k", 1}}));  // its router learns from the experts' verdict
  CHECK_THROWS_WITH_AS(make({{"k", 1.5}}), doctest::Contains("whole number"), UserError);
  CHECK_THROWS_WITH_AS(make({{"k", 5}}), doctest::Contains("there are 4 experts"), UserError);
}
