#include "apps/model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "apps/config_file.h"
#include "autograd/tape.h"
#include "core/copy.h"
#include "ops/elementwise.h"
#include "ops/linear_cross_entropy.h"
#include "ops/reference.h"
#include "tests/apps/tiny.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

const char* const kGpt = R"(
precision = "f64"
[model]
layers = 2
width = 12
heads = 3
sequence = 8
activation = "gelu"
norm = "layer"
position = "learned"
tied = true
bias = true
init = 0.3
scaled_init = false
)";

const char* const kMixtral = R"(
precision = "f64"
[model]
layers = 2
width = 12
heads = 6
kv_heads = 2
head_width = 4
sequence = 8
feed_forward = 10
init = 0.3
scaled_init = false
[moe]
experts = 4
[moe.router]
strategy = "token_choice"
k = 2
norm = "topk"
)";

/// Causal attention as a triple loop: q [n, H, d], k and v [n, G, d] of one sequence -> [n, H d].
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, int64_t kv_heads) {
  const int64_t n = q.shape(0), d = q.size() / n / heads;
  Tensor y = reference::zeros({n, heads * d});
  const auto Q = q.data<double>(), K = k.data<double>(), V = v.data<double>(), Y = y.data<double>();
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t g = h / (heads / kv_heads);
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> p(size_t(i) + 1);
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double s = 0;
        for (int64_t c = 0; c < d; ++c) s += Q[size_t((i * heads + h) * d + c)] * K[size_t((j * kv_heads + g) * d + c)];
        sum += p[size_t(j)] = std::exp(s / std::sqrt(double(d)));
      }
      for (int64_t j = 0; j <= i; ++j)
        for (int64_t c = 0; c < d; ++c)
          Y[size_t((i * heads + h) * d + c)] += p[size_t(j)] / sum * V[size_t((j * kv_heads + g) * d + c)];
    }
  }
  return y;
}

/// Llama's rotary embedding: the pair (i, i + d/2) turns by position * theta^(-2i/d).
Tensor turned(const Tensor& x, int64_t heads, double theta) {
  const int64_t n = x.shape(0), d = x.size() / n / heads;
  Tensor y = reference::zeros(x.shape());
  for (int64_t t = 0; t < n; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < d / 2; ++i) {
        const double angle = double(t) * std::pow(theta, -2.0 * double(i) / double(d));
        const auto at = size_t((t * heads + h) * d + i), other = at + size_t(d / 2);
        const double a = x.data<double>()[at], b = x.data<double>()[other];
        y.data<double>()[at] = a * std::cos(angle) - b * std::sin(angle);
        y.data<double>()[other] = b * std::cos(angle) + a * std::sin(angle);
      }
  return y;
}

Tensor plus(const Tensor& a, const Tensor& b) {
  Tensor y = clone(a);
  for (size_t i = 0; i < size_t(y.size()); ++i) y.data<double>()[i] += b.data<double>()[i];
  return y;
}

Tensor project(const Tensor& x, const Projection& p) { return reference::linear(x, p.weight, p.bias); }

/// Biases and gains away from 0 and 1, so that a wrong one is seen.
void shake(LanguageModel& model) {
  uint64_t seed = 100;
  each_parameter(model, [&](const std::string&, Parameter& p) {
    if (p.init != Init::normal) copy(p.value, plus(p.value, random(p.value.shape(), seed++, 0.2)));
  });
}

}  // namespace

TEST_CASE("model: nanoGPT's GPT, block by block in plain loops") {
  const auto comm = make_self_communicator();
  const Config c = parse_config(kGpt, "gpt");
  LanguageModel model(c, 11, *comm);
  shake(model);
  const Sequences at = tiny_sequences(1, 7, 11);
  Tensor h = reference::embedding(parameter(model, "embedding"), at.token);
  h = plus(h, reference::embedding(parameter(model, "positions"), at.position));
  for (Block& b : model.blocks()) {
    const Tensor x = reference::layer_norm(h, b.attention_norm.gain, b.attention_norm.bias, 1e-5);
    const Tensor y =
        attend(project(x, b.attention.query), project(x, b.attention.key), project(x, b.attention.value), 3, 3);
    h = plus(h, project(y, b.attention.out));
    const Tensor z = reference::layer_norm(h, b.feed_forward_norm.gain, b.feed_forward_norm.bias, 1e-5);
    const Tensor hidden = reference::gelu(reference::linear(z, b.dense->up, b.dense->up_bias));
    CHECK(hidden.shape(1) == 48);
    h = plus(h, reference::linear(hidden, b.dense->down, b.dense->down_bias));
  }
  h = reference::layer_norm(h, parameter(model, "norm.gain"), parameter(model, "norm.bias"), 1e-5);
  const Passed passed = model(at, {});
  CHECK(relative_error(passed.hidden, h) < 1e-12);
  CHECK(relative_error(model.logits(passed.hidden), reference::linear(h, parameter(model, "embedding"))) < 1e-12);
}

TEST_CASE("model: Mixtral's block, in plain loops") {
  const auto comm = make_self_communicator();
  const Config c = parse_config(kMixtral, "mixtral");
  LanguageModel model(c, 11, *comm);
  shake(model);
  const Sequences at = tiny_sequences(1, 8, 11);
  Tensor h = reference::embedding(parameter(model, "embedding"), at.token);
  int i = 0;
  for (Block& b : model.blocks()) {
    const Tensor x = reference::rms_norm(h, b.attention_norm.gain, 1e-5);
    const Tensor q = turned(project(x, b.attention.query), 6, 10000), k = turned(project(x, b.attention.key), 2, 10000);
    h = plus(h, project(attend(q, k, project(x, b.attention.value), 6, 2), b.attention.out));
    const Tensor z = reference::rms_norm(h, b.feed_forward_norm.gain, 1e-5);
    const Tensor gate = parameter(model, text("blocks.", i++, ".feed_forward.router.gate"));
    const Tensor p = reference::softmax(reference::linear(z, gate));
    Tensor y = reference::zeros(z.shape());
    for (int64_t t = 0; t < 8; ++t) {
      std::vector<std::pair<double, int64_t>> ranked;
      for (int64_t e = 0; e < 4; ++e) ranked.emplace_back(-p.data<double>()[size_t(t * 4 + e)], e);
      std::sort(ranked.begin(), ranked.end());
      const double sum = ranked[0].first + ranked[1].first;
      for (int j = 0; j < 2; ++j) {
        const auto [score, e] = ranked[size_t(j)];
        for (int64_t o = 0; o < 12; ++o)
          for (int64_t f = 0; f < 10; ++f) {
            double gated = 0, up = 0;
            for (int64_t d = 0; d < 12; ++d) {
              const double v = z.data<double>()[size_t(t * 12 + d)];
              gated += v * b.experts->experts().up.value.data<double>()[size_t((e * 20 + f) * 12 + d)];
              up += v * b.experts->experts().up.value.data<double>()[size_t((e * 20 + 10 + f) * 12 + d)];
            }
            const double hidden = gated / (1 + std::exp(-gated)) * up;
            y.data<double>()[size_t(t * 12 + o)] +=
                score / sum * hidden * b.experts->experts().down.value.data<double>()[size_t((e * 12 + o) * 10 + f)];
          }
      }
    }
    h = plus(h, y);
  }
  h = reference::rms_norm(h, parameter(model, "norm.gain"), 1e-5);
  CHECK(relative_error(model(at, {}).hidden, h) < 1e-12);
}

TEST_CASE("model: gradients of every parameter against finite differences, dense and with experts") {
  const auto comm = make_self_communicator();
  for (const char* config : {kGpt, kMixtral})
    for (const bool qk_norm : {false, true}) {
      const std::vector<std::string> overrides{text("model.qk_norm=", qk_norm ? "true" : "false")};
      LanguageModel model(parse_config(config, "test", overrides), 11, *comm);
      shake(model);
      const Sequences at = tiny_sequences(2, 6, 11);
      const Tensor target = tiny_sequences(2, 6, 11, 9).token;
      const auto all = parameters(model);
      CHECK(gradient_error(
                all,
                [&] {
                  const Passed passed = model(at, {});
                  Tensor loss = linear_cross_entropy(passed.hidden, model.head(), target, 12).loss;
                  for (const Losses& layer : passed.losses)
                    for (const Loss& l : layer) loss = add(loss, scale(l.value, l.coefficient));
                  return loss;
                },
                1e-6) < 1e-6);
    }
}

TEST_CASE("model: with a cache, token by token, the same bits as all at once") {
  const auto comm = make_self_communicator();
  for (const char* config : {kGpt, kMixtral})
    for (const char* precision : {"precision=f64", "precision=fp32", "precision=bf16"}) {
      LanguageModel model(parse_config(config, "test", std::vector<std::string>{precision}), 11, *comm);
      const Sequences all = tiny_sequences(1, 8, 11);
      RouterContext context;
      context.mode = Mode::eval;
      const Tensor whole = converted(model(all, context).hidden, DType::f64);
      KeyValueCache cache = model.make_cache(8);
      for (const auto& [from, n] : {std::pair{0, 3}, {3, 1}, {4, 1}, {5, 3}}) {
        const auto ids = all.token.data<int32_t>().subspan(size_t(from), size_t(n));
        Sequences next;
        next.token = tensor_of(std::vector<int32_t>(ids.begin(), ids.end()));
        const auto positions = all.position.data<int32_t>().subspan(size_t(from), size_t(n));
        next.position = tensor_of(std::vector<int32_t>(positions.begin(), positions.end()));
        next.offsets = tensor_of<int32_t>({0, n});
        const Tensor part = converted(model(next, context, &cache).hidden, DType::f64);
        for (size_t i = 0; i < size_t(part.size()); ++i)
          CHECK(part.data<double>()[i] == whole.data<double>()[size_t(from) * 12 + i]);
      }
      CHECK_THROWS_WITH_AS(model(tiny_sequences(1, 1, 11), context, &cache),
                           doctest::Contains("cache of 8 tokens is full"), Error);
    }
}

TEST_CASE("model: recomputation changes no bit, with dropout too") {
  const auto comm = make_self_communicator();
  for (const char* config : {kGpt, kMixtral}) {
    std::vector<Tensor> before;
    for (const char* again : {"model.recompute=false", "model.recompute=true"}) {
      LanguageModel model(parse_config(config, "test", std::vector<std::string>{again, "model.dropout=0.2"}), 11,
                          *comm);
      const auto all = parameters(model);
      Tape tape(all);
      const Passed passed = model(tiny_sequences(2, 6, 11), {});
      tape.backward(linear_cross_entropy(passed.hidden, model.head(), tiny_sequences(2, 6, 11, 9).token, 12).loss);
      for (size_t i = 0; i < all.size(); ++i) {
        CAPTURE(all[i]->name);
        if (before.size() == i)
          before.push_back(clone(all[i]->grad));
        else
          CHECK(identical(before[i], all[i]->grad));
      }
    }
  }
}

TEST_CASE("model: dropout acts in training only") {
  const auto comm = make_self_communicator();
  LanguageModel with(parse_config(kGpt, "test", std::vector<std::string>{"model.dropout=0.5"}), 11, *comm);
  LanguageModel without(parse_config(kGpt, "test"), 11, *comm);
  RouterContext context;
  const Sequences at = tiny_sequences(1, 6, 11);
  CHECK(relative_error(with(at, context).hidden, without(at, context).hidden) > 0.1);
  context.mode = Mode::eval;
  CHECK(identical(with(at, context).hidden, without(at, context).hidden));
}

TEST_CASE("model: paths, shapes, what decays, and a strategy of its own for one block") {
  const auto comm = make_self_communicator();
  LanguageModel model(
      parse_config(std::string(kMixtral) + "[[moe.layer]]\nindex = 1\nk = 1\nnorm = \"none\"\nbias_rate = 0.001\n",
                   "test"),
      11, *comm);
  std::set<std::string> paths, states;
  each_parameter(model, [&](const std::string& path, Parameter& p) {
    paths.insert(path);
    CHECK(p.name == path);
    CHECK(p.decays == !path.ends_with("norm.gain"));
  });
  each_state(model, [&](const std::string& path, Tensor&) { states.insert(path); });
  CHECK(paths.contains("blocks.1.feed_forward.experts.gate_up"));
  CHECK(paths.contains("blocks.0.attention.query.weight"));
  CHECK(paths.contains("head"));
  CHECK(states.contains("blocks.1.feed_forward.router.bias"));
  const Passed passed = model(tiny_sequences(1, 8, 11), {});
  CHECK(dot(passed.statistics[0].load, fill_like(passed.statistics[0].load, 1)) == 16);
  CHECK(dot(passed.statistics[1].load, fill_like(passed.statistics[1].load, 1)) == 8);
}

TEST_CASE("model: every and first_dense say which blocks have experts") {
  const auto comm = make_self_communicator();
  LanguageModel model(
      parse_config(kMixtral, "test", std::vector<std::string>{"model.layers=5", "moe.every=2", "moe.first_dense=2"}),
      11, *comm);
  std::string kinds;
  for (const Block& b : model.blocks()) kinds += b.experts ? 'e' : 'd';
  CHECK(kinds == "ddded");
}
