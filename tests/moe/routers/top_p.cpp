#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <iterator>

#include "moe/routers/top_p.h"
#include "ops/linear.h"
#include "ops/softmax.h"
#include "ops/top_k.h"
#include "tests/moe/layers.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 12, kExperts = 6;

struct TopP {
  std::unique_ptr<Communicator> comm = make_self_communicator();
  MoeLayer layer;

  explicit TopP(const Settings& settings, int64_t experts = kExperts, Precision precision = Precision::f64())
      : layer(layer_options(experts, "gelu", true), *router_options("top_p", settings), kWidth, precision,
              {0.8, 0.6, 0.6}, *comm) {
    fill_parameters(layer, 3);
  }
  Router& router() { return layer.router(); }
  Parameter& gate() {
    Parameter* found = nullptr;
    each_parameter(layer, [&](const std::string& name, Parameter& p) { found = name == "router.gate" ? &p : found; });
    return *found;
  }
  /// What it chooses where token t's probabilities are these.
  std::vector<int32_t> chosen(const std::vector<double>& probabilities) {
    const auto E = int64_t(probabilities.size());
    gate().value.zero();  // x is (1, 0, ...), so that the first column of the gate makes the logits
    for (int64_t e = 0; e < E; ++e) gate().value.data<double>()[e * kWidth] = std::log(probabilities[size_t(e)]);
    Tensor x = Tensor({1, kWidth}, DType::f64).zero();
    x.data<double>()[0] = 1;
    const Pairs pairs = router().select(x, {});
    const auto expert = pairs.expert.data<int32_t>();
    return {expert.begin(), expert.begin() + pairs.token_offsets.data<int32_t>()[1]};
  }
};

using Experts = std::vector<int32_t>;

Tensor loss_named(const Losses& losses, const std::string& name) {
  for (const Loss& loss : losses)
    if (loss.name == name) return loss.value;
  FAIL("no such loss");
  return {};
}

std::string contents(const std::string& path) {
  std::ifstream file(std::string(AGON_SOURCE_DIR) + "/" + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("top_p: a token takes its likeliest experts until they reach p, ties to the lower index") {
  TopP r({{"p", 0.55}}, 4);
  CHECK(r.chosen({0.1, 0.7, 0.1, 0.1}) == Experts{1});
  CHECK(r.chosen({0.25, 0.2, 0.05, 0.5}) == Experts{3, 0});
  CHECK(r.chosen({0.3, 0.2, 0.2, 0.3}) == Experts{0, 3});
  CHECK(r.chosen({0.2, 0.4, 0.2, 0.2}) == Experts{1, 0});
  CHECK(r.chosen({0.25, 0.25, 0.25, 0.25}) == Experts{0, 1, 2});
  TopP half({{"p", 0.5}}, 4);
  CHECK(half.chosen({1e-300, 0.5, 1e-300, 0.5}) == Experts{1});  // what reaches p exactly is enough
}

TEST_CASE("top_p: as few experts as reach p, none left out that is likelier, never more than ceil(p E)") {
  for (const double p : {0.05, 0.4, 0.75, 1.0}) {
    CAPTURE(p);
    TopP r({{"p", p}, {"k", 1}});
    const Tensor x = random({200, kWidth}, 5);
    const Pairs pairs = r.router().select(x, {});
    const auto offset = pairs.token_offsets.data<int32_t>(), expert = pairs.expert.data<int32_t>();
    const auto most = int64_t(std::ceil(p * double(kExperts)));
    CHECK(pairs.expert.size() == 200 * most);  // a bound that the host knows
    for (int64_t t = 0; t < 200; ++t) {
      const double* const row = pairs.scores.data<double>().data() + t * kExperts;
      double all = 0, without_last = 0;
      std::vector<bool> in(size_t(kExperts), false);
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) {
        without_last = all;
        all += row[expert[i]];
        in[size_t(expert[i])] = true;
        if (i > offset[t]) CHECK(row[expert[i]] <= row[expert[i - 1]]);
      }
      const int32_t n = offset[t + 1] - offset[t];
      CHECK(n >= 1);
      CHECK(n <= most);
      CHECK(without_last < p);
      CHECK(all >= p - 1e-15 * double(kExperts));
      for (int64_t e = 0; e < kExperts; ++e)
        if (!in[size_t(e)]) CHECK(row[e] <= row[expert[offset[t + 1] - 1]]);
    }
  }
}

TEST_CASE("top_p: the more doubtful the router, the more experts, and p = 1 is the dense mixture") {
  TopP r({{"p", 0.7}});
  const Tensor x = random({200, kWidth}, 5);
  double before = 0;
  for (const double sharpness : {8.0, 2.0, 0.5, 0.0}) {
    copy(r.gate().value, scale(random(r.gate().value.shape(), 9), sharpness));
    const auto figures = r.layer(x, {}).statistics.scalars();
    CHECK(figures.at("experts_per_token") > before);
    before = figures.at("experts_per_token");
    CHECK(figures.at("taken") >= 0.7);
    CHECK(figures.at("taken") <= 1);
  }
  CHECK(before == 5);  // ceil(0.7 · 6) at even probabilities

  TopP all({{"p", 1}});
  const Tensor few = random({kTokens, kWidth}, 1), y = all.layer(few, {}).y, p = softmax(linear(few, all.gate()));
  Tensor mixture;
  for (int64_t e = 0; e < kExperts; ++e) {
    Tensor share({kTokens}, DType::f64);
    for (int64_t t = 0; t < kTokens; ++t) share.data<double>()[t] = p.data<double>()[t * kExperts + e];
    std::vector<int32_t> offsets(size_t(kExperts) + 1, 0);
    std::fill(offsets.begin() + e + 1, offsets.end(), int32_t(kTokens));
    const Tensor part = scale_rows(all.layer.experts()(few, tensor_of(offsets)), share);
    mixture = mixture ? add(mixture, part) : part;
  }
  CHECK(relative_error(y, mixture) < 1e-14);
}

TEST_CASE("top_p: weights are probabilities, or their shares among the chosen") {
  for (const bool shares : {false, true}) {
    TopP r({{"norm", shares ? "row_selected" : "none"}, {"p", 0.7}});
    const Pairs pairs = r.router().select(random({kTokens, kWidth}, 1), {});
    const auto offset = pairs.token_offsets.data<int32_t>(), expert = pairs.expert.data<int32_t>();
    for (int64_t t = 0; t < kTokens; ++t) {
      double all = 0;
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) all += pairs.scores.data<double>()[t * kExperts + expert[i]];
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i)
        CHECK(pairs.weight.data<double>()[i] ==
              doctest::Approx(pairs.scores.data<double>()[t * kExperts + expert[i]] / (shares ? all : 1)));
    }
  }
}

TEST_CASE("top_p: gradients of a layer with every option agree with finite differences, the choice held") {
  for (const char* norm : {"none", "row_selected"}) {
    TopP r({{"p", 0.7},
            {"norm", norm},
            {"token_entropy_coefficient", 0.5},
            {"balance_coefficient", 0.3},
            {"z_coefficient", 0.1},
            {"entropy_coefficient", 0.2}});
    Parameter x({kTokens, kWidth}, Precision::f64());
    copy(x.value, random({kTokens, kWidth}, 1));
    std::vector<Parameter*> all = parameters(r.layer);
    all.push_back(&x);
    Decision decision;
    r.layer(x, {}, &decision);
    const std::vector<Pairs> held{decision.pairs};
    RouterContext context;
    context.held = held;
    CHECK(gradient_error(all, [&] { return total(r.layer(x, context), 1, 0, kTokens); }) < 1e-7);
  }
}

TEST_CASE("top_p: held decisions are repeated whatever the scores say") {
  TopP r({{"p", 0.5}});
  Decision decision;
  r.layer(random({kTokens, kWidth}, 1), {}, &decision);
  const std::vector<Pairs> held{decision.pairs};
  RouterContext context;
  context.held = held;
  const Pairs again = r.router().select(random({kTokens, kWidth}, 2), context);
  CHECK(identical(again.expert, decision.pairs.expert));
  CHECK(identical(again.token_offsets, decision.pairs.token_offsets));
  CHECK_FALSE(identical(again.weight, decision.pairs.weight));
}

TEST_CASE("top_p: its loss is the mean entropy of a token's probabilities, not the entropy of their mean") {
  TopP r({{"token_entropy_coefficient", 0.25}});
  const Tensor x = random({kTokens, kWidth}, 1);
  const Pairs pairs = r.router().select(x, {});
  const Losses losses = r.router().weigh(pairs, {}, {}, {}).losses;
  REQUIRE(losses.size() == 2);
  CHECK(losses[0].name == "balance");
  CHECK(losses[0].coefficient == 0.01);
  CHECK(losses[1].coefficient == 0.25);
  double entropy = 0;
  for (const double p : pairs.scores.data<double>()) entropy -= p * std::log(p) / double(kTokens);
  CHECK(loss_named(losses, "token_entropy").item() == doctest::Approx(entropy).epsilon(1e-13));
  TopP none({{"token_entropy_coefficient", 0}, {"balance_coefficient", 0}});
  CHECK(none.router().weigh(none.router().select(x, {}), {}, {}, {}).losses.empty());

  // Followed downhill, it makes tokens surer and their experts fewer.
  const auto experts = [&] { return r.layer(x, {}).statistics.scalars().at("experts_per_token"); };
  copy(r.gate().value, random(r.gate().value.shape(), 9, 0.1));
  const double before = experts();
  Parameter* const all[] = {&r.gate()};
  for (int step = 0; step < 300; ++step) {
    r.gate().has_grad = false;
    Tape tape(all);
    tape.backward(loss_named(r.layer(x, {}).losses, "token_entropy"));
    copy(r.gate().value, subtract(r.gate().value, r.gate().grad));
  }
  CHECK(before > 2);
  CHECK(experts() < 1.2);
}

TEST_CASE("top_p: a router that is sure beyond what numbers hold keeps finite losses and gradients") {
  TopP r({{"token_entropy_coefficient", 1}}, kExperts, Precision::fp32());
  fill(r.gate().value, 0);
  for (int64_t e = 0; e < kExperts; ++e) r.gate().value.data<float>()[e * kWidth] = float(e) * 1e4f;
  const Tensor x({2, kWidth}, DType::f32);
  fill(x, 1);
  Parameter* const all[] = {&r.gate()};
  Tape tape(all);
  const LayerOutput out = r.layer(x, {});
  CHECK(loss_named(out.losses, "token_entropy").item() == 0);
  tape.backward(total(out, 1, 0, 2));
  for (const float v : r.gate().grad.data<float>()) CHECK(std::isfinite(v));
}

TEST_CASE("top_p: a token's experts depend on that token alone, in every mode") {
  TopP r({{"p", 0.6}}, kExperts, Precision::fp32());
  const Tensor x = random({kTokens, kWidth}, 6, 1, DType::f32);
  RouterContext context;
  const Tensor whole = r.layer(x, context).y;
  CHECK(r.router().thresholds() == nullptr);
  for (const Mode mode : {Mode::train, Mode::eval, Mode::eval_noncausal}) {
    context.mode = mode;
    for (int64_t t = 0; t < kTokens; ++t)
      CHECK(identical(r.layer(slice(x, t, t + 1), context).y, slice(whole, t, t + 1)));
  }
}

TEST_CASE("top_p: two ranks equal one") {
  const Tensor x = random({kTokens, kWidth}, 6);
  TopP one({{"p", 0.6}});
  const Tensor whole = one.layer(x, {}).y;
  run_on_threads(2, [&](Communicator& comm) {
    const int64_t half = kTokens / 2, first = comm.rank() * half;
    MoeLayer layer(layer_options(kExperts, "gelu", true), *router_options("top_p", {{"p", 0.6}}), kWidth,
                   Precision::f64(), {0.8, 0.6, 0.6}, comm);
    std::map<std::string, Parameter*> of_one;
    each_parameter(one.layer, [&](const std::string& name, Parameter& p) { of_one[name] = &p; });
    each_parameter(layer, [&](const std::string& name, Parameter& p) {
      const Tensor& from = of_one.at(name)->value;
      const int64_t part = p.value.shape(0);
      copy(p.value, p.group == Group::expert ? slice(from, comm.rank() * part, (comm.rank() + 1) * part) : from);
    });
    check(relative_error(layer(slice(x, first, first + half), {}).y, slice(whole, first, first + half)) < 1e-14,
          "the output of rank ", comm.rank());
  });
}

TEST_CASE("top_p: no token, one token, one expert, NaN") {
  for (const auto& [tokens, experts] : {std::pair{0, 4}, {1, 4}, {5, 1}, {1, 1}}) {
    CAPTURE(tokens);
    CAPTURE(experts);
    TopP r({{"k", 1}, {"token_entropy_coefficient", 1}, {"z_coefficient", 1}}, experts);
    Parameter x({tokens, kWidth}, Precision::f64());
    copy(x.value, random({tokens, kWidth}, 1));
    std::vector<Parameter*> all = parameters(r.layer);
    all.push_back(&x);
    Tape tape(all);
    const LayerOutput out = r.layer(x, {});
    for (const auto& [name, value] : out.statistics.scalars()) CHECK(std::isfinite(value));
    tape.backward(total(out, 1, 0, tokens));
    for (const Parameter* p : all)
      for (const double v : p->grad.data<double>()) CHECK(std::isfinite(v));
  }
  TopP r({});
  Tensor x = random({3, kWidth}, 1);
  x.data<double>()[kWidth] = std::nan("");
  RouterContext context;
  context.layer = 2;
  context.step = 4;
  CHECK_THROWS_WITH_AS(r.router().select(x, context), doctest::Contains("layer 2 at step 5 are NaN, first for token 1"),
                       Error);
}

TEST_CASE("top_p: refuses what cannot work, and says why") {
  const auto validate = [](const Settings& settings) { router_options("top_p", settings)->validate(8); };
  CHECK_NOTHROW(validate({}));
  CHECK_NOTHROW(validate({{"p", 1}, {"k", 8}}));
  CHECK_THROWS_WITH_AS(validate({{"k", 5}}),
                       doctest::Contains("k = 5, but with moe.router.p = 0.4 a token takes at most 4 of 8"), UserError);
  CHECK_NOTHROW(validate({{"p", 0.1}, {"k", 1}}));
  CHECK_THROWS_WITH_AS(validate({{"p", 0.1}, {"k", 1}, {"norm", "row_selected"}}),
                       doctest::Contains("no gradient from the task"), UserError);
  CHECK_THROWS_AS(router_options("top_p", {{"p", 0}}), Error);
  CHECK_THROWS_AS(router_options("top_p", {{"p", 1.5}}), Error);
  CHECK(router_options("top_p", {})->warning().empty());
  CHECK(router_options("top_p", {{"norm", "row_selected"}})->warning().find("tokens_with_1") != std::string::npos);
}

GPU_CASE("top_p: a GPU chooses the same experts, and makes the same entropy") {
  for (const auto& [T, E] : {std::pair{1, 1}, {0, 4}, {300, 8}, {5, 70}}) {
    CAPTURE(T);
    CAPTURE(E);
    const Tensor logits = random({T, E}, 1, 2, DType::f32), z = there(logits), scores = softmax(logits);
    for (const double p : {0.1, 0.5, 0.9, 1.0}) {
      const int64_t most = std::max<int64_t>(int64_t(std::ceil(p * double(E))), 1);
      const Tensor best = top_k(scores, most), probabilities = there(scores), ranked = there(best);
      const auto list = [](int64_t n, Device device) { return Tensor({n}, DType::i32, device); };
      const Selection here{list(T * most, {}), list(T + 1, {})};
      run<SelectTopP>(Device(), here, scores, best, p);
      for (const uint64_t order : {0, 1, 2}) {
        const ThreadOrder changed(order);
        const Selection chosen{list(T * most, device_of_case()), list(T + 1, device_of_case())};
        run<SelectTopP>(device_of_case(), chosen, probabilities, ranked, p);
        CHECK(identical(chosen.expert, here.expert));
        CHECK(identical(chosen.token_offsets, here.token_offsets));
      }
    }
    const Tensor dh = random({T}, 2, 1, DType::f32), h({T}, DType::f32), dz({T, E}, DType::f32);
    run<TokenEntropy::Forward>(Device(), h, logits);
    run<TokenEntropy::Backward>(Device(), dz, dh, h, logits);
    const Tensor own({T}, DType::f32, device_of_case()), own_dz({T, E}, DType::f32, device_of_case());
    run<TokenEntropy::Forward>(device_of_case(), own, z);
    run<TokenEntropy::Backward>(device_of_case(), own_dz, there(dh), own, z);
    CHECK(relative_error(own, h) < 1e-5);
    CHECK(relative_error(own_dz, dz) < 1e-5);
  }
}

TEST_CASE("top_p: docs/add-a-strategy.md quotes the whole file, and nothing that is not there") {
  const std::string page = contents("docs/add-a-strategy.md"), source = contents("moe/routers/top_p.cpp"),
                    test = contents("tests/moe/routers/top_p.cpp"), header = contents("moe/routers/top_p.h");
  REQUIRE(source.size() > 1000);
  size_t quoted = 0, of_others = 0;  // characters of the source, blocks of the test and the header
  for (size_t at = page.find("```cpp\n"); at != std::string::npos; at = page.find("```cpp\n", at)) {
    at += 7;
    const size_t end = page.find("```\n", at);
    REQUIRE(end != std::string::npos);
    const std::string block = page.substr(at, end - at);
    at = end + 4;
    CAPTURE(block);
    if ((test + header).find(block) != std::string::npos && source.find(block) == std::string::npos) {
      ++of_others;
      continue;
    }
    const size_t found = source.find(block, quoted);
    REQUIRE(found != std::string::npos);
    CHECK(source.substr(quoted, found - quoted).find_first_not_of('\n') == std::string::npos);
    quoted = found + block.size();
  }
  CHECK(quoted == source.size());
  CHECK(of_others > 1);
}
