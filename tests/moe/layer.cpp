#include "moe/layer.h"

#include <doctest/doctest.h>

#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/softmax.h"
#include "tests/moe/layers.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 11;

RouterContext context_for(int64_t tokens) {
  RouterContext context;
  context.seed = 5;
  context.step = 3;
  context.layer = 1;
  context.sequence_offsets = tensor_of<int32_t>({0, int32_t(tokens / 2), int32_t(tokens)});
  return context;
}

/// Worst disagreement of gradients and central differences over x and every parameter. The decision is held fixed, and
/// with it what the losses take for a constant.
double layer_gradient_error(MoeLayer& layer, Parameter& x, RouterContext context) {
  std::vector<Parameter*> all = parameters(layer);
  all.push_back(&x);
  Decision decision;
  layer(x, context, &decision);
  std::vector<Pairs> held(size_t(context.layer) + 1);
  held.back() = decision.pairs;
  context.held = held;
  return gradient_error(all, [&] { return total(layer(x, context), 1, 0, x.value.shape(0)); });
}

Parameter input(int64_t tokens, uint64_t seed = 1) {
  Parameter x({tokens, kWidth}, Precision::f64());
  copy(x.value, random({tokens, kWidth}, seed));
  return x;
}

}  // namespace

TEST_CASE("layer: gradients through real experts agree with finite differences, for every setting and the toy") {
  const auto self = make_self_communicator();
  for (const LayerCase& c : layer_cases(8)) {
    CAPTURE(c.name);
    MoeLayer layer = make_layer(c, *self);
    fill_parameters(layer, 31);
    Parameter x = input(kTokens);
    RouterContext context = context_for(kTokens);
    context.compete = c.compete;
    CHECK(layer_gradient_error(layer, x, context) < 1e-6);
  }
}

TEST_CASE("layer: gradients of every registered strategy agree with finite differences") {
  const auto self = make_self_communicator();
  for (const auto& [name, make] : routers()) {
    CAPTURE(name);
    const std::unique_ptr<RouterOptions> options = make();
    MoeLayer layer(layer_options(4), *options, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, *self);
    fill_parameters(layer, 13);
    Parameter x = input(kTokens);
    for (const bool compete : {false, true}) {
      RouterContext context = context_for(kTokens);
      context.compete = compete;
      CHECK(layer_gradient_error(layer, x, context) < 1e-6);
    }
  }
}

TEST_CASE("layer: with every expert chosen and raw weights, token choice is the dense mixture") {
  const auto self = make_self_communicator();
  const auto router = router_options("token_choice", {{"k", 4}});
  MoeLayer layer(layer_options(4, "gelu", true), *router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, *self);
  fill_parameters(layer, 3);
  const Tensor x = random({kTokens, kWidth}, 1), y = layer(x, context_for(kTokens)).y;
  Parameter* gate = nullptr;
  each_parameter(layer, [&](const std::string& name, Parameter& p) {
    if (name == "router.gate") gate = &p;
  });
  REQUIRE(gate);
  const Tensor p = softmax(linear(x, *gate));
  Tensor mixture;
  for (int64_t e = 0; e < 4; ++e) {
    Tensor share({kTokens}, DType::f64);
    for (int64_t t = 0; t < kTokens; ++t) share.data<double>()[t] = p.data<double>()[t * 4 + e];
    std::vector<int32_t> offsets(5, 0);
    std::fill(offsets.begin() + e + 1, offsets.end(), int32_t(kTokens));
    const Tensor part = scale_rows(layer.experts()(x, tensor_of(offsets)), share);
    mixture = mixture ? add(mixture, part) : part;
  }
  CHECK(relative_error(y, mixture) < 1e-14);
}

TEST_CASE("layer: shared experts serve every token, gated by a sigmoid if asked") {
  const auto self = make_self_communicator();
  const auto router = router_options("token_choice", {});
  for (const bool gated : {false, true}) {
    MoeLayer with(layer_options(4, "swiglu", false, 2, gated), *router, kWidth, Precision::f64(), {0.8, 0.6, 0.6},
                  *self);
    fill_parameters(with, 3);
    MoeLayer without(layer_options(4), *router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, *self);
    fill_parameters(without, 3);  // the router's and the experts' come first: equal ones
    FeedForward shared(kWidth, 10, Activation::swiglu, false, Precision::f64(), 1, 1);
    Parameter* gate = nullptr;
    each_parameter(with, [&](const std::string& name, Parameter& p) {
      if (name == "shared.gate_up") copy(shared.up.value, p.value);
      if (name == "shared.down") copy(shared.down.value, p.value);
      if (name == "shared_gate") gate = &p;
    });
    CHECK(bool(gate) == gated);
    const Tensor x = random({kTokens, kWidth}, 1);
    Tensor expected = shared(x);
    if (gated) expected = scale_rows(expected, sigmoid(linear(x, *gate)));
    expected = add(without(x, context_for(kTokens)).y, expected);
    CHECK(relative_error(with(x, context_for(kTokens)).y, expected) < 1e-14);
  }
}

TEST_CASE("layer: permuting the tokens permutes the result, the same call twice gives the same bits") {
  const auto self = make_self_communicator();
  for (const Precision precision : {Precision::fp32(), Precision::bf16()}) {
    const auto router = router_options("token_choice", {{"score", "sigmoid"}, {"norm", "topk"}});
    MoeLayer layer(layer_options(8, "swiglu", true, 1), *router, kWidth, precision, {0.8, 0.6, 0.6}, *self);
    fill_parameters(layer, 5);
    const Tensor x = random({kTokens, kWidth}, 1, 1, precision.compute);
    Tensor reversed(x.shape(), x.dtype());
    const int64_t row = kWidth * size_of(x.dtype());
    for (int64_t t = 0; t < kTokens; ++t)
      std::memcpy(static_cast<char*>(reversed.address()) + t * row,
                  static_cast<const char*>(x.address()) + (kTokens - 1 - t) * row, size_t(row));
    RouterContext context;
    const Tensor y = layer(x, context).y, z = layer(reversed, context).y;
    CHECK(identical(y, layer(x, context).y));
    for (int64_t t = 0; t < kTokens; ++t)
      CHECK(std::memcmp(static_cast<const char*>(z.address()) + t * row,
                        static_cast<const char*>(y.address()) + (kTokens - 1 - t) * row, size_t(row)) == 0);
  }
}

TEST_CASE("layer: one token, one expert, no token, experts nobody chose") {
  const auto self = make_self_communicator();
  for (const auto& [tokens, experts, k] : {std::tuple{1, 8, 2}, {5, 1, 1}, {1, 1, 1}, {0, 4, 2}, {2, 40, 1}}) {
    const auto router = router_options("token_choice", {{"k", double(k)}});
    MoeLayer layer(layer_options(experts, "swiglu", true), *router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, *self);
    fill_parameters(layer, 3);
    Parameter x = input(tokens);
    std::vector<Parameter*> all = parameters(layer);
    all.push_back(&x);
    Tape tape(all);
    const LayerOutput out = layer(x, {});
    CHECK(out.y.shape() == Shape{tokens, kWidth});
    tape.backward(total(out, 1, 0, tokens));
    for (const Parameter* p : all)
      for (double v : p->grad.data<double>()) CHECK(std::isfinite(v));
  }
}

TEST_CASE("layer: leaves no memory behind and asks for the same addresses whatever the routing") {
  const auto self = make_self_communicator();
  for (const LayerCase& c : layer_cases(8)) {
    CAPTURE(c.name);
    MoeLayer layer = make_layer(c, *self, c.name == "toy" ? Precision::f64() : Precision::fp32());
    fill_parameters(layer, 7);
    const std::vector<Parameter*> all = parameters(layer);
    std::vector<Tensor> inputs;
    for (uint64_t seed = 1; seed <= 3; ++seed)
      inputs.push_back(random({kTokens, kWidth}, seed, 1, c.name == "toy" ? DType::f64 : DType::f32));
    RouterContext context = context_for(kTokens);
    context.compete = c.compete;
    const auto step = [&](Arena& arena, const Tensor& x) {
      const Arena::Scope scope(arena);
      Tape tape(all);
      const LayerOutput out = layer(x, context);
      const void* const address = out.y.address();
      tape.backward(total(out, 1, 0, kTokens));
      return address;
    };
    Arena measure;
    step(measure, inputs[0]);
    CHECK(measure.live() == 0);
    Arena slab(measure.extent());
    const void* const first = step(slab, inputs[0]);
    for (const Tensor& x : inputs) CHECK(step(slab, x) == first);
    CHECK(slab.live() == 0);
    CHECK(slab.spilled() == 0);
    CHECK(slab.extent() == measure.extent());
  }
}

TEST_CASE("layer: parameters and state are named below it, ranks hold their part of the experts") {
  run_on_threads(2, [](Communicator& comm) {
    const auto router = router_options("token_choice", {});
    MoeLayer layer(layer_options(4, "swiglu", false, 1, true), *router, kWidth, Precision::fp32(), {0.8, 0.6, 0.5},
                   comm);
    std::vector<std::string> names, states;
    each_parameter(layer, [&](const std::string& name, Parameter& p) {
      names.push_back(name);
      if (p.group == Group::expert) check(p.first == comm.rank() * p.value.size(), name, " starts at ", p.first);
    });
    each_state(layer, [&](const std::string& name, Tensor&) { states.push_back(name); });
    const std::vector<std::string> expected{"router.gate",    "experts.gate_up", "experts.down",
                                            "shared.gate_up", "shared.down",     "shared_gate"};
    check(names == expected, "the names of the parameters");
    check(states == std::vector<std::string>{"router.bias"}, "the names of the states");
    check(layer.experts().experts() == 2, "experts of a rank");
  });
}

TEST_CASE("layer: refuses what does not fit") {
  const auto router = router_options("token_choice", {});
  const auto self = make_self_communicator();
  const auto make = [&](MoeOptions options, Communicator& comm) {
    MoeLayer(options, *router, kWidth, {}, {1, 1, 1}, comm);
  };
  CHECK_NOTHROW(make(layer_options(2), *self));
  CHECK_THROWS_WITH_AS(make(layer_options(1), *self), doctest::Contains("k = 2, but there are 1 experts"), UserError);
  CHECK_THROWS_WITH_AS(make(layer_options(4, "tanh"), *self), doctest::Contains("tanh"), UserError);
  CHECK_THROWS_WITH_AS(make(layer_options(4, "gelu", false, 0, true), *self), doctest::Contains("shared_gate"),
                       UserError);
  MoeOptions no_width = layer_options(4);
  no_width.expert_width = 0;
  CHECK_THROWS_WITH_AS(make(no_width, *self), doctest::Contains("expert_width"), UserError);
  CHECK_THROWS_WITH_AS(run_on_threads(3, [&](Communicator& comm) { make(layer_options(4), comm); }),
                       doctest::Contains("moe.experts = 4 do not divide over 3 ranks"), UserError);
}

namespace {

/// A router whose decision is given.
class Given final : public Router {
 public:
  Given(Pairs pairs, bool rows) : pairs_(std::move(pairs)), rows_(rows) {}
  Pairs select(const Tensor&, const RouterContext&) override { return pairs_; }
  Weighed weigh(const Pairs& pairs, const Tensor&, const Plan&, const RouterContext&) override {
    return {pairs.weight, {}, {}};
  }
  bool weighs_rows(const RouterContext&) const override { return rows_; }
  void visit(const Visitor&) override {}

 private:
  Pairs pairs_;
  bool rows_;
};

struct GivenOptions final : RouterOptions {
  Pairs pairs;
  bool rows = false;
  void visit(OptionVisitor&) override {}
  void validate(int64_t) const override {}
  std::unique_ptr<Router> make(const RouterSize&) const override { return std::make_unique<Given>(pairs, rows); }
  double experts_per_token() const override { return 1; }
};

/// y, and the gradients of x, the weights and the parameters.
std::vector<Tensor> given_layer(bool rows, Precision precision, Device device) {
  const auto self = make_self_communicator();
  const RandomPairs chosen = random_pairs(kTokens, 4, 7, 30);
  const auto at = [&](const Tensor& t, DType dtype) { return on_device(converted(t, dtype), device); };
  const DType wide = accumulator_dtype(precision.compute);
  GivenOptions options;
  options.rows = rows;
  options.pairs.expert = on_device(chosen.expert, device);
  options.pairs.token_offsets = on_device(chosen.token_offsets, device);
  options.pairs.weight = at(random(chosen.expert.shape(), 2), wide);
  MoeLayer layer(layer_options(4, "swiglu", true, 2, true), options, kWidth, precision, {0.8, 0.6, 0.6}, *self);
  fill_parameters(layer, 31);
  move_to(layer, device);
  const Tensor x = at(random({kTokens, kWidth}, 1), precision.compute),
               dy = at(random({kTokens, kWidth}, 3), precision.compute), loss({1}, wide, device);
  const std::vector<Parameter*> all = parameters(layer);
  const Crossings before = crossings();
  Tape tape(all);
  tape.watch(x);
  tape.watch(options.pairs.weight);
  const Tensor y = layer(x, {}).y;
  tape.backward(record("given", {&y}, loss, [y, dy](Gradients& g, const Tensor&) { g.add(y, dy); }));
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
  std::vector<Tensor> found{y, tape.gradient(x), tape.gradient(options.pairs.weight)};
  for (const Parameter* p : all) found.push_back(clone(p->grad));
  return found;
}

}  // namespace

GPU_CASE("layer: both ways through the experts as on the CPU in f64, forward and backward, without crossing") {
  for (const bool rows : {false, true}) {
    CAPTURE(rows);
    const std::vector<Tensor> expected = given_layer(rows, Precision::f64(), {});
    for (const Precision precision : {Precision::fp32(), Precision::bf16()}) {
      const std::vector<Tensor> found = given_layer(rows, precision, device_of_case());
      const ThreadOrder changed(2);
      const std::vector<Tensor> again = given_layer(rows, precision, device_of_case());
      REQUIRE(found.size() == expected.size());
      for (size_t i = 0; i < found.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_error(found[i], expected[i]) < (precision.compute == DType::bf16 ? 3e-2 : 1e-5));
        CHECK(identical(found[i], again[i]));
      }
    }
  }
}
