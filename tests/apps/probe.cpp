#include "apps/probe.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/safetensors.h"
#include "tests/apps/probe_strategies.h"
#include "tests/apps/run_folder.h"
#include "tests/moe/toy_router.h"
#include "tests/support/cuda.h"
#include "tests/support/message.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using test::check_contains;
using testing::dot;
using testing::identical;
using testing::random;
using testing::Registered;
using testing::relative_error;

namespace {

constexpr int64_t T = 7, D = 6, E = 4, F = 5;
const std::string kLayer = "width = 6\ndtype = 'f64'\n[moe]\nexperts = 4\nexpert_width = 5\n";
const std::string kLosses = "balance_coefficient = 0.3\nz_coefficient = 0.2\n";

/// Weights large enough for every part to matter.
Tensors inputs() {
  return {{"x", random({T, D}, 1)},
          {"dy", random({T, D}, 2)},
          {"router.weight", random({E, D}, 3, 0.7)},
          {"experts.gate_up", random({E, 2 * F, D}, 4, 0.7)},
          {"experts.down", random({E, D, F}, 5, 0.7)}};
}

Tensors probed(const std::string& toml, const Tensors& in, const ProbeFlags& flags = {}) {
  return run_probe(parse_probe_layer(toml, "layer.toml"), in, "in", flags);
}

std::span<double> numbers(const Tensor& t) { return t.data<double>(); }

/// Token choice with softmax, norm none, swiglu experts, written out.
Tensors written_out(const Tensors& in, int64_t k) {
  const auto x = numbers(in.at("x")), gate = numbers(in.at("router.weight"));
  const auto up = numbers(in.at("experts.gate_up")), down = numbers(in.at("experts.down"));
  Tensors out{
      {"logits", Tensor({T, E}, DType::f64)},           {"scores", Tensor({T, E}, DType::f64)},
      {"selected", Tensor({T, E}, DType::i32).zero()},  {"weights", Tensor({T, E}, DType::f64).zero()},
      {"y", Tensor({T, D}, DType::f64).zero()},         {"expert_outputs", Tensor({T, E, D}, DType::f64).zero()},
      {"loss.balance", Tensor({1}, DType::f64).zero()}, {"loss.z", Tensor({1}, DType::f64).zero()}};
  std::vector<double> share(E), mean(E);
  for (int64_t t = 0; t < T; ++t) {
    double* const z = &numbers(out["logits"])[size_t(t * E)];
    double* const p = &numbers(out["scores"])[size_t(t * E)];
    double total = 0;
    for (int64_t e = 0; e < E; ++e) {
      z[e] = 0;
      for (int64_t d = 0; d < D; ++d) z[e] += x[t * D + d] * gate[e * D + d];
      total += std::exp(z[e]);
    }
    for (int64_t e = 0; e < E; ++e) p[e] = std::exp(z[e]) / total, mean[e] += p[e] / T;
    numbers(out["loss.z"])[0] += std::log(total) * std::log(total) / T;
    std::vector<int64_t> order(E);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, [&](int64_t a, int64_t b) { return p[a] > p[b]; });
    for (int64_t j = 0; j < k; ++j) {
      const int64_t e = order[size_t(j)];
      out["selected"].data<int32_t>()[t * E + e] = 1;
      numbers(out["weights"])[t * E + e] = p[e];
      share[e] += 1.0 / double(k * T);
    }
    for (int64_t e = 0; e < E; ++e)
      for (int64_t f = 0; f < F; ++f) {
        double a = 0, b = 0;
        for (int64_t d = 0; d < D; ++d) {
          a += up[(e * 2 * F + f) * D + d] * x[t * D + d];
          b += up[(e * 2 * F + F + f) * D + d] * x[t * D + d];
        }
        const double h = a / (1 + std::exp(-a)) * b;
        for (int64_t d = 0; d < D; ++d) {
          const double o = down[(e * D + d) * F + f] * h;
          numbers(out["expert_outputs"])[(t * E + e) * D + d] += o;
          numbers(out["y"])[t * D + d] += numbers(out["weights"])[t * E + e] * o;
        }
      }
  }
  for (int64_t e = 0; e < E; ++e) numbers(out["loss.balance"])[0] += E * share[e] * mean[e];
  return out;
}

/// The worst disagreement between the gradients a probe gives and central differences of its values, each input along a
/// random direction.
double gradient_error(const std::string& toml, const Tensors& in, const std::map<std::string, double>& coefficients) {
  const auto objective = [&](const Tensors& at) {
    const Tensors out = probed(toml, at);
    double sum = dot(at.at("dy"), out.at("y"));
    for (const auto& [name, coefficient] : coefficients) sum += coefficient * out.at("loss." + name).item();
    return sum;
  };
  Tensors whole = in;  // what the probe draws is an input as well
  const Tensors out = probed(toml, in);
  for (const auto& [name, t] : out)
    if (name.starts_with("grad.") && !whole.contains(name.substr(5))) whole[name.substr(5)] = out.at(name.substr(5));
  double worst = 0;
  uint64_t seed = 50;
  for (const auto& [name, t] : out) {
    if (!name.starts_with("grad.")) continue;
    const std::string input = name.substr(5);
    const Tensor v = random(t.shape(), seed++);
    const auto at = [&](double h) {
      Tensors moved = whole;
      moved[input] = clone(whole.at(input));
      for (size_t i = 0; i < numbers(v).size(); ++i) numbers(moved[input])[i] += h * numbers(v)[i];
      return objective(moved);
    };
    const double h = 1e-5, numeric = (at(h) - at(-h)) / (2 * h), along = dot(t, v);
    CAPTURE(name);
    CHECK(std::abs(numeric) > 1e-6);  // a direction that tells something
    worst = std::max(worst, std::abs(numeric - along) / std::max(1e-3, std::abs(numeric) + std::abs(along)));
  }
  return worst;
}

bool all_zero_bits(const Tensor& t) { return identical(t, Tensor(t.shape(), t.dtype()).zero()); }

}  // namespace

TEST_CASE("probe: token choice is what is written out") {
  const Tensors in = inputs(), expected = written_out(in, 2);
  const Tensors out = probed(kLayer + "[moe.router]\nk = 2\n" + kLosses, in, {false, true});
  CHECK(identical(out.at("selected"), expected.at("selected")));
  for (const auto& [name, t] : expected) {
    CAPTURE(name);
    CHECK(out.at(name).shape() == t.shape());
    CHECK(out.at(name).dtype() == (name == "selected" ? DType::i32 : DType::f64));
    CHECK(relative_error(out.at(name), t) < 1e-13);
  }
  std::string names;
  for (const auto& [name, t] : out) names += name + ' ';
  CHECK(names ==
        "expert_outputs grad.experts.down grad.experts.gate_up grad.router.weight grad.x logits loss.balance loss.z "
        "router.bias scores selected weights y ");
}

TEST_CASE("probe: gradients agree with central differences") {
  const std::map<std::string, double> losses{{"balance", 0.3}, {"z", 0.2}};
  CHECK(gradient_error(kLayer + "[moe.router]\nk = 2\nnorm = 'topk'\n" + kLosses, inputs(), losses) < 1e-7);
  Tensors in = inputs();
  in["sequence_lengths"] = tensor_of<int32_t>({4, 3});
  in["router.bias"] = random({E}, 8, 0.1);
  CHECK(gradient_error(kLayer +
                           "bias = true\nshared_experts = 2\nshared_gate = true\n[moe.router]\nscore = 'sigmoid'\n" +
                           "balance_scope = 'sequence'\ncapacity_factor = 0.5\n" + kLosses,
                       in, losses) < 1e-7);
}

TEST_CASE("probe: weights made from the experts' rows") {
  const Registered<testing::ToyOptions> toy("rows");
  Tensors in = inputs();
  CHECK(gradient_error(kLayer + "[moe.router]\nstrategy = 'rows'", in, {{"z", 0.1}, {"loud", 0.3}}) < 1e-7);
  const Tensors out = probed(kLayer + "[moe.router]\nstrategy = 'rows'", in);
  for (int64_t t = 0; t < T; ++t) {
    int chosen = 0;
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) {
      chosen += out.at("selected").data<int32_t>()[t * E + e];
      sum += numbers(out.at("weights"))[t * E + e];
    }
    CHECK(chosen == t % 3);
    CHECK(sum == doctest::Approx(t % 3 ? 1 : 0));
  }
}

TEST_CASE("probe: each loss by itself, and their sum") {
  const Tensors in = inputs();
  const Tensors out = probed(kLayer + "[moe.router]\nk = 2\n" + kLosses, in, {true, false});
  for (const char* input : {"x", "router.weight", "experts.gate_up", "experts.down"}) {
    const std::string name = input;
    CAPTURE(name);
    const Tensor sum = clone(out.at("grad.task." + name));
    for (const auto& [loss, coefficient] : {std::pair{"balance", 0.3}, {"z", 0.2}}) {
      const Tensor part = out.at(text("grad.loss.", loss, '.', name));
      CHECK(identical(part, out.at(text("grad.", loss, '.', name))));
      for (size_t i = 0; i < numbers(sum).size(); ++i) numbers(sum)[i] += coefficient * numbers(part)[i];
      const bool experts = name.starts_with("experts");
      CHECK(all_zero_bits(part) == experts);
    }
    CHECK(relative_error(out.at("grad." + name), sum) < 1e-13);
  }
  // The task's gradient is that of a layer without losses.
  const Tensors alone = probed(kLayer + "[moe.router]\nk = 2\nbalance_coefficient = 0", in);
  CHECK(identical(alone.at("grad.router.weight"), out.at("grad.task.router.weight")));
  CHECK_FALSE(alone.contains("loss.balance"));
}

TEST_CASE("probe: names that are taken keep what they have, and a loss of nothing has gradient 0") {
  const Registered<testing::ShowingOptions> showing("showing");
  const std::string toml = kLayer + "[moe.router]\nstrategy = 'showing'";
  Tensors in = inputs();
  in["router.threshold"] = random({E}, 9);
  in["sequence_lengths"] = tensor_of<int32_t>({4, 0, 3});
  const Tensors out = probed("mode = 'eval'\n" + toml, in, {true, false});
  CHECK(out.at("loss.limit").item() ==
        doctest::Approx(dot(in["router.threshold"], converted(tensor_of<float>({1, 1, 1, 1}), DType::f64))));
  CHECK(out.at("loss.loss.z").item() == 4);
  CHECK(all_zero_bits(out.at("grad.limit.x")));
  CHECK(all_zero_bits(out.at("grad.loss.loss.z.router.weight")));
  CHECK(identical(out.at("grad.loss.z.router.weight"), out.at("grad.z.router.weight")));
  CHECK_FALSE(all_zero_bits(out.at("grad.loss.z.router.weight")));
  CHECK_FALSE(out.contains("affinity"));
  const Tensors competed = probed("mode = 'compete'\n" + toml, in);
  CHECK(identical(competed.at("affinity"), competed.at("logits")));
}

TEST_CASE("probe: experts' answers make y, in every dtype") {
  for (const auto& [dtype, tolerance] : {std::pair{"f64", 1e-14}, {"f32", 1e-6}, {"bf16", 2e-2}}) {
    CAPTURE(std::string(dtype));
    const Tensors out = probed(text("width = 6\ndtype = '", dtype, "'\n[moe]\nexperts = 4\n[moe.router]\nk = 2"),
                               inputs(), {false, true});
    const Tensor y({T, D}, DType::f64);
    y.zero();
    const Tensor weights = converted(out.at("weights"), DType::f64),
                 o = converted(out.at("expert_outputs"), DType::f64);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t e = 0; e < E; ++e)
        for (int64_t d = 0; d < D; ++d)
          numbers(y)[t * D + d] += numbers(weights)[t * E + e] * numbers(o)[(t * E + e) * D + d];
    CHECK(relative_error(out.at("y"), y) < tolerance);
  }
}

TEST_CASE("probe: f32 and bf16 are near f64 and written in f32") {
  Tensors in = inputs();
  for (auto& [name, t] : in) t = converted(converted(t, DType::bf16), DType::f64);  // the same numbers in every dtype
  const auto run = [&](const char* dtype) {
    return probed(text("width = 6\ndtype = '", dtype, "'\n[moe]\nexperts = 4\n[moe.router]\nk = 2\n", kLosses), in,
                  {true, true});
  };
  const Tensors exact = run("f64");
  for (const auto& [dtype, tolerance] : {std::pair{"f32", 1e-5}, {"bf16", 3e-2}}) {
    const Tensors out = run(dtype);
    CHECK(out.size() == exact.size());
    CHECK(identical(out.at("selected"), exact.at("selected")));
    for (const auto& [name, t] : exact) {
      CAPTURE(text(dtype, ' ', name));
      CHECK(out.at(name).dtype() == (name == "selected" ? DType::i32 : DType::f32));
      CHECK(relative_error(out.at(name), t) < tolerance);
    }
    CHECK(relative_error(out.at("y"), exact.at("y")) > 1e-12);
  }
}

TEST_CASE("probe: what was drawn reproduces the run") {
  for (const char* dtype : {"f64", "f32", "bf16"}) {
    const std::string toml = text("width = 6\nseed = 3\ndtype = '", dtype,
                                  "'\n[moe]\nexperts = 4\nexpert_width = 5\nbias = true\n[moe.router]\njitter = 0.1");
    Tensors in{{"x", random({T, D}, 1)}, {"dy", random({T, D}, 2)}};
    const Tensors out = probed(toml, in);
    for (const char* name :
         {"router.weight", "router.bias", "experts.gate_up", "experts.down", "experts.up_bias", "experts.down_bias"})
      in[name] = out.at(name);
    const Tensors again = probed(toml, in);
    CHECK(again.size() == out.size() - 6);
    for (const auto& [name, t] : again) {
      CAPTURE(text(dtype, ' ', name));
      CHECK(identical(t, out.at(name)));
    }
  }
}

TEST_CASE("probe: modes and sequences decide what a capacity drops") {
  const auto pairs = [&](const std::string& mode, int group, const std::vector<int32_t>& lengths) {
    Tensors in = inputs();
    fill(in["x"], 1);  // all tokens want the same expert
    in["sequence_lengths"] = tensor_of(lengths);
    const Tensors out =
        probed(text("mode = '", mode, "'\n", kLayer, "[moe.router]\nk = 1\ncapacity_factor = 1\ngroup = ", group), in);
    const auto selected = out.at("selected").data<const int32_t>();
    return std::accumulate(selected.begin(), selected.end(), 0);
  };
  CHECK(pairs("train", 0, {4, 3}) == 2);  // ceil(7 / 4)
  CHECK(pairs("train", 1, {4, 3}) == 2);  // ceil(4 / 4) + ceil(3 / 4)
  CHECK(pairs("train", 1, {2, 2, 3}) == 3);
  CHECK(pairs("eval", 1, {4, 3}) == 7);
  CHECK(pairs("eval_noncausal", 1, {4, 3}) == 7);
  check_contains(test::user_error([&] { pairs("train", 2, {2, 2, 3}); }), {"group = 2", "3 sequences"});
}

TEST_CASE("probe: no tokens, one expert") {
  const Tensors none =
      probed(kLayer, {{"x", Tensor({0, D}, DType::f64)}, {"dy", Tensor({0, D}, DType::f64)}}, {true, true});
  CHECK(none.at("y").shape() == Shape{0, D});
  CHECK(none.at("expert_outputs").shape() == Shape{0, E, D});
  CHECK(all_zero_bits(none.at("grad.experts.down")));
  const Tensors one =
      probed("width = 6\n[moe]\nexperts = 1\nexpert_width = 5\n[moe.router]\nk = 1", {{"x", random({1, D}, 1)}});
  CHECK(one.at("weights").item() == 1);
}

TEST_CASE("probe: what cannot be run") {
  Tensors in = inputs();
  in.erase("dy");
  const Tensors out = probed(kLayer, in);
  for (const auto& [name, t] : out) CHECK_FALSE(name.starts_with("grad."));
  check_contains(test::user_error([&] {
                   probed(kLayer, in, {true, false});
                 }),
                 {"in: has no tensor 'dy'", "--each-loss"});
  check_contains(
      test::user_error([&] { probed("mode = 'eval'\n" + kLayer + "[moe.router]\nstrategy = 'unified'", in); }),
      {"in: has no tensor 'router.threshold', expected floats of [1]"});
  check_contains(test::user_error([&] {
                   probed("mode = 'eval'\n" + kLayer + "[moe.router]\nstrategy = 'unified'\nexpert_score = 'softmax'",
                          in);
                 }),
                 {"expert_score = \"softmax\"", "no causal evaluation"});
  numbers(in["x"])[T * D - 1] = NAN;
  CHECK(testing::contains(testing::error([&] { probed(kLayer, in); }),
                          "scores of layer 0 at step 1 are NaN, first for token 6"));
}

TEST_CASE("probe: from files to a file") {
  const testing::TemporaryFolder folder;
  const testing::Quiet quiet(folder / "printed");
  const std::string layer = folder / "layer.toml", in = folder / "in.safetensors", out = folder / "out.safetensors";
  testing::put(layer, kLayer + "[moe.router]\nk = 2\n" + kLosses);
  std::vector<NamedTensor> given;
  for (const auto& [name, t] : inputs()) given.push_back({name, t});
  write_safetensors(in, given);
  testing::put(out, "what was there");

  CHECK(probe({layer, in, out, true, true}) == 0);
  CHECK(testing::contains(quiet.text(), "7 tokens, 4 experts, 14 pairs"));
  const Tensors expected = probed(kLayer + "[moe.router]\nk = 2\n" + kLosses, inputs(), {true, true});
  const SafetensorsFile written = SafetensorsFile::open(out);
  CHECK(written.tensors().size() == expected.size());
  for (const auto& [name, t] : expected) CHECK(identical(written.load(name), t));

  const std::string before = testing::contents_of(out);
  testing::put(folder / "bad.toml", "width = 7\n[moe]\nexperts = 4\n");
  check_contains(test::user_error([&] {
                   probe({folder / "bad.toml", in, out});
                 }),
                 {in.c_str(), "'x' is f64 [7, 6], expected floats of [T, 7]", "bad.toml: width 7"});
  check_contains(test::user_error([&] { probe({layer, folder / "none", out}); }), {"none"});
  check_contains(test::user_error([&] { probe({layer, layer, out}); }), {"layer.toml", "safetensors"});
  check_contains(test::user_error([&] { probe({layer, in, in}); }), {in.c_str(), "would replace"});
  check_contains(test::user_error([&] { probe({layer, in, layer}); }), {layer.c_str(), "would replace"});
  check_contains(test::user_error([&] { probe({layer, in, folder / "no/out"}); }), {"no/"});
  CHECK(testing::contents_of(out) == before);
}

GPU_CASE("probe: a GPU decides as the CPU and gives its gradients") {
  Tensors in = inputs();
  for (auto& [name, t] : in) t = converted(t, DType::f32);
  in["sequence_lengths"] = tensor_of<int32_t>({3, 4});
  const std::string layer = "width = 6\n", experts = "[moe]\nexperts = 4\nexpert_width = 5\n[moe.router]\n";
  for (const auto& [top, router] : {std::pair{"", "strategy = 'token_choice'"},
                                    {"", "strategy = 'expert_choice'\nk = 1.5\nscope = 'sequence'"},
                                    {"", "strategy = 'unified'\nk = 1.5"},
                                    {"mode = 'compete'\n", "strategy = 'competition'"}}) {
    CAPTURE(std::string(router));
    const ProbeFlags flags{.each_loss = true, .expert_outputs = true};
    const Tensors here = probed(layer + top + experts + router, in, flags),
                  there = probed(layer + "device = 'cuda'\n" + top + experts + router, in, flags);
    CHECK(identical(there.at("selected"), here.at("selected")));
    REQUIRE(there.size() == here.size());
    for (const auto& [name, t] : here) {
      CAPTURE(name);
      CHECK(there.at(name).device() == Device{});
      CHECK(relative_error(there.at(name), t) < 1e-4);
    }
  }
}
