#include "apps/probe_inputs.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/copy.h"
#include "tests/apps/probe_strategies.h"
#include "tests/support/gradient.h"
#include "tests/support/message.h"

using namespace agon;
using test::check_contains;
using testing::identical;
using testing::random;
using testing::Registered;
using testing::ShowingOptions;

namespace {

const std::string kSmall = "width = 6\ndtype = 'f64'\n[moe]\nexperts = 4\n";

ProbeInputs made(const std::string& toml, const Tensors& given) {
  static const auto comm = make_self_communicator();
  return make_probe_inputs(parse_probe_layer(toml, "layer.toml"), given, "in", *comm);
}
std::string refused(const std::string& toml, const Tensors& given) {
  return test::user_error([&] { made(toml, given); });
}
const Tensor& value(const ProbeInputs& in, const std::string& name) {
  for (const ProbedParameter& p : in.trained)
    if (p.name == name) return p.parameter->value;
  FAIL("no parameter ", name);
  throw Error(name);
}
Tensors with_x() { return {{"x", random({5, 6}, 1)}}; }

}  // namespace

TEST_CASE("probe_inputs: the names of all parts") {
  const ProbeInputs plain = made(kSmall + "expert_width = 8", with_x());
  REQUIRE(plain.trained.size() == 3);
  CHECK(value(plain, "router.weight").shape() == Shape{4, 6});
  CHECK(value(plain, "experts.gate_up").shape() == Shape{4, 16, 6});
  CHECK(value(plain, "experts.down").shape() == Shape{4, 6, 8});
  CHECK(plain.drawn.size() == 4);
  CHECK(identical(plain.drawn.at("router.bias"), Tensor({4}, DType::f64).zero()));
  CHECK_FALSE(plain.dy);
  CHECK_FALSE(plain.sequence_offsets);

  const ProbeInputs full = made(
      kSmall + "expert_width = 8\nactivation = 'relu'\nbias = true\nshared_experts = 2\nshared_gate = true", with_x());
  std::string names;
  for (const ProbedParameter& p : full.trained) names += text(p.name, p.parameter->value.shape(), ' ');
  CHECK(names ==
        "router.weight[4, 6] experts.up[4, 8, 6] experts.down[4, 6, 8] experts.up_bias[4, 8] experts.down_bias[4, 6] "
        "shared.up[16, 6] shared.down[6, 16] shared.up_bias[16] shared.down_bias[6] shared_gate[1, 6] ");
}

TEST_CASE("probe_inputs: what is given arrives, what is missing is drawn from the seed alone") {
  const std::string toml = kSmall + "expert_width = 8\nbias = true";
  Tensors given = with_x();
  const ProbeInputs drawn = made(toml, given), again = made(toml, given), other = made("seed = 2\n" + toml, given);
  for (const auto& [name, t] : drawn.drawn) {
    CAPTURE(name);
    CHECK(identical(t, again.drawn.at(name)));
    const bool weight = name != "router.bias" && name != "experts.up_bias" && name != "experts.down_bias";
    CHECK(identical(t, other.drawn.at(name)) != weight);
  }
  double square = 0;
  for (const double v : drawn.drawn.at("experts.gate_up").data<const double>()) square += v * v / (4 * 16 * 6);
  CHECK(std::sqrt(square) == doctest::Approx(0.02).epsilon(0.1));

  given["experts.down"] = random({4, 6, 8}, 3);
  given["experts.up_bias"] = random({4, 16}, 4);
  given["router.weight"] = random({4, 6}, 5);
  given["router.bias"] = random({4}, 6);
  given["dy"] = random({5, 6}, 7);
  given["sequence_lengths"] = tensor_of<int32_t>({2, 0, 3});
  const ProbeInputs mixed = made(toml, given);
  CHECK(identical(value(mixed, "experts.down"), given["experts.down"]));
  CHECK(identical(value(mixed, "experts.up_bias"), given["experts.up_bias"]));
  CHECK(identical(value(mixed, "router.weight"), given["router.weight"]));
  CHECK(identical(value(mixed, "experts.gate_up"), value(drawn, "experts.gate_up")));
  CHECK(identical(mixed.x, given["x"]));
  CHECK(identical(mixed.dy, given["dy"]));
  CHECK(identical(mixed.sequence_offsets, tensor_of<int32_t>({0, 2, 2, 5})));
  CHECK(mixed.drawn.size() == 2);
  each_state(*mixed.layer, [&](const std::string&, Tensor& t) { CHECK(identical(t, given["router.bias"])); });
}

TEST_CASE("probe_inputs: floats of any dtype become those of the layer, rounded once") {
  const Tensor exact = random({5, 6}, 1), gate = random({4, 6}, 2), down = random({4, 6, 8}, 3);
  for (const DType from : {DType::f64, DType::f32, DType::bf16, DType::f16})
    for (const auto& [dtype, compute] : {std::pair{"f64", DType::f64}, {"f32", DType::f32}, {"bf16", DType::bf16}}) {
      CAPTURE(text(from, " to ", compute));
      const Tensors given{{"x", converted(exact, from)},
                          {"router.weight", converted(gate, from)},
                          {"experts.down", converted(down, from)}};
      const ProbeInputs in = made(text("width = 6\ndtype = '", dtype, "'\n[moe]\nexperts = 4"), given);
      CHECK(identical(in.x, converted(given.at("x"), compute)));
      CHECK(identical(value(in, "experts.down"), converted(given.at("experts.down"), compute)));
      CHECK(identical(value(in, "router.weight"), converted(given.at("router.weight"), accumulator_dtype(compute))));
      CHECK(in.drawn.at("experts.gate_up").dtype() == accumulator_dtype(compute));
      for (const ProbedParameter& p : in.trained) {
        const Tensor& master = p.parameter->master;
        if (given.contains(p.name)) CHECK(identical(master, converted(p.parameter->value, master.dtype())));
      }
    }
}

TEST_CASE("probe_inputs: the experts' width comes from their tensors") {
  const auto width = [](const std::string& more, const std::string& name, Shape shape) {
    Tensors given = with_x();
    given[name] = random(shape, 2);
    return made(kSmall + more, given).layer->experts().hidden();
  };
  CHECK(width("", "experts.down", {4, 6, 9}) == 9);
  CHECK(width("", "experts.gate_up", {4, 14, 6}) == 7);
  CHECK(width("expert_width = 7", "experts.gate_up", {4, 14, 6}) == 7);
  CHECK(width("activation = 'relu'", "experts.up", {4, 5, 6}) == 5);
  CHECK(width("bias = true", "experts.up_bias", {4, 6}) == 3);
  check_contains(refused(kSmall, with_x()), {"moe.expert_width", "in has no tensors of experts", ">= 1"});
  Tensors wrong = with_x();
  wrong["experts.up"] = random({4, 5, 6}, 2);  // with swiglu there is no such tensor: said rather than the width
  check_contains(refused(kSmall, wrong),
                 {"'experts.up' of f64 [4, 5, 6]", "activation = \"swiglu\": there it is gate_up"});
  Tensors given = with_x();
  given["experts.down"] = random({4, 6, 9}, 2);
  check_contains(refused(kSmall + "expert_width = 8", given),
                 {"in: tensor 'experts.down' is f64 [4, 6, 9], expected floats of [4, 6, 8]", "expert_width 8"});
  given["experts.gate_up"] = random({4, 17, 6}, 2);
  check_contains(refused(kSmall, given), {"'experts.gate_up' is f64 [4, 17, 6], expected floats of [4, 18, 6]"});
}

TEST_CASE("probe_inputs: unknown, misshapen and mistyped tensors") {
  const std::string toml = kSmall + "expert_width = 8";
  check_contains(refused(toml, {}), {"in: has no tensor 'x'", "[T, 6]"});
  check_contains(refused(toml, {{"X", random({5, 6}, 1)}}), {"'X'", "no place"});
  Tensors given = with_x();
  given["router.wieght"] = random({4, 6}, 1);
  check_contains(refused(toml, given), {"'router.wieght' of f64 [4, 6]", "did you mean \"router.weight\"?"});
  for (const auto& [name, why] : {std::pair{"shared.down", "without moe.shared_experts"},
                                  {"shared_gate", "without moe.shared_gate = true"},
                                  {"experts.up_bias", "without moe.bias = true"},
                                  {"experts.down_bias", "without moe.bias = true"}}) {
    given = with_x();
    given[name] = random({4, 6}, 1);
    check_contains(refused(toml, given), {name, "has no place for", why});
  }
  given = with_x();
  given["experts.gate_up"] = random({4, 16, 6}, 1);
  check_contains(refused(toml + "\nactivation = 'gelu'", given),
                 {"without moe.activation = \"swiglu\": there it is up"});
  for (const Shape shape : {Shape{}, Shape{6}, Shape{5, 7}, Shape{5, 6, 1}}) {
    CAPTURE(text(shape));
    check_contains(refused(toml, {{"x", random(shape, 1)}}), {"tensor 'x' is f64", "expected floats of [T, 6]"});
  }
  check_contains(refused(toml, {{"x", converted(random({5, 6}, 1), DType::i32)}}), {"tensor 'x' is i32 [5, 6]"});
  given = with_x();
  given["dy"] = random({4, 6}, 1);
  given["router.weight"] = random({6, 4}, 1);
  given["router.bias"] = converted(random({4}, 1), DType::i32);
  check_contains(refused(toml, given),
                 {"tensor 'dy' is f64 [4, 6], expected floats of [5, 6]", "'router.weight' is f64 [6, 4]",
                  "'router.bias' is i32 [4], expected floats of [4]", "by layer.toml: width 6, experts 4"});
}

TEST_CASE("probe_inputs: sequence lengths") {
  const std::string toml = kSmall + "expert_width = 8";
  const auto with = [&](const Tensor& lengths) {
    Tensors given = with_x();
    given["sequence_lengths"] = lengths;
    return refused(toml, given);
  };
  check_contains(with(tensor_of<int32_t>({2, 2})), {"makes 4 tokens, found 5 in 'x'"});
  check_contains(with(tensor_of<int32_t>({2, 4})), {"makes 6 tokens, found 5 in 'x'"});
  check_contains(with(tensor_of<int32_t>({2000000000, 2000000000})), {"makes 4000000000 tokens"});
  check_contains(with(tensor_of<int32_t>({6, -1})), {"the length -1", "at least 0"});
  check_contains(with(tensor_of<float>({5})), {"'sequence_lengths' is f32 [1], expected i32 of [B]"});
  check_contains(with(tensor_of<int32_t>({5}).reshape({1, 1})), {"'sequence_lengths' is i32 [1, 1]"});
  check_contains(with(Tensor({0}, DType::i32)), {"'sequence_lengths' is i32 [0]", "at least one sequence"});
}

TEST_CASE("probe_inputs: thresholds") {
  const Registered<ShowingOptions> showing("showing");
  const std::string toml = kSmall + "expert_width = 8\n[moe.router]\nstrategy = 'showing'",
                    eval = "mode = 'eval'\n" + toml;
  CHECK_FALSE(made(toml, with_x()).drawn.contains("router.threshold"));
  CHECK_FALSE(made("mode = 'eval_noncausal'\n" + toml, with_x()).drawn.contains("router.threshold"));
  check_contains(refused(eval, with_x()), {"in: has no tensor 'router.threshold', expected floats of [4]",
                                           "\"showing\"", "mode (layer.toml:1) is \"eval\""});
  Tensors given = with_x();
  given["router.threshold"] = random({4}, 3);
  const ProbeInputs in = made(eval, given);
  CHECK(identical(in.layer->router().thresholds()->value, given["router.threshold"]));
  given["router.threshold"] = random({1}, 3);
  check_contains(refused(eval, given), {"'router.threshold' is f64 [1], expected floats of [4]"});
  given["router.threshold"] = tensor_of<double>({0, NAN, 1, 2});
  check_contains(refused(eval, given), {"'router.threshold' has NaN"});
  given.erase("router.threshold");
  check_contains(refused("mode = 'eval'\n" + kSmall + "expert_width = 8\n",
                         {{"x", random({5, 6}, 1)}, {"router.threshold", random({4}, 3)}}),
                 {"'router.threshold'", "no place"});
}
