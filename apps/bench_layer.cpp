#include <fmt/format.h>

#include <cmath>

#include "apps/bench_inputs.h"
#include "apps/probe_layer.h"
#include "ops/elementwise.h"

namespace agon {

namespace {

/// What is routed: by a gate that knows the tokens' common direction, which makes loads uneven as in training, or by
/// tokens that were made for k experts each, all experts equally often.
enum class Routing { learned, balanced };

struct LayerVariant {
  const char* strategy;
  bool compete;
  Routing routing;
  bool always;          // without --all too
  bool losers = false;  // loser_gradient
};
constexpr LayerVariant kVariants[] = {
    {"token_choice", false, Routing::learned, true},  {"token_choice", false, Routing::balanced, true},
    {"expert_choice", false, Routing::learned, true}, {"expert_choice", false, Routing::balanced, false},
    {"unified", false, Routing::learned, true},       {"unified", false, Routing::balanced, false},
    {"competition", false, Routing::learned, true},   {"competition", false, Routing::balanced, false},
    {"competition", true, Routing::learned, true},    {"competition", true, Routing::learned, false, true},
};

/// A layer on its device, with input sets.
struct LayerBench {
  ProbeLayer description;
  std::unique_ptr<Communicator> comm = make_self_communicator();
  std::unique_ptr<MoeLayer> layer;
  std::vector<Parameter*> trained;
  std::vector<Tensor> x, dy;
  RouterContext context;

  LayerBench(const LayerShape& s, const LayerVariant& v, const BenchOptions& o, int64_t sets);
  LayerOutput forward(int64_t turn) const { return (*layer)(x[size_t(turn) % x.size()], context); }
  void forward_backward(int64_t turn) const;
};

std::string toml(const LayerShape& s, const LayerVariant& v, const BenchOptions& o) {
  return fmt::format(
      "width = {}\ndtype = \"{}\"\nmode = \"{}\"\n[moe]\nexperts = {}\nexpert_width = {}\n[moe.router]\nstrategy = "
      "\"{}\"\nk = {}\n{}",
      s.width, name_of(o.dtype), v.compete ? "compete" : "train", s.experts, s.hidden, v.strategy, s.k,
      v.losers ? "loser_gradient = true\n" : "");
}

/// x [T, D]: noise, and on top the common direction (learned) or the gate's rows of the token's experts (balanced).
Tensor tokens_for(const LayerShape& s, const Tensor& gate, Routing routing, uint64_t seed) {
  const Tensor x = drawn({s.tokens, s.width}, DType::f32, {}, seed);
  const auto to = x.data<float>();
  const auto rows = gate.data<const float>();
  const Tensor direction = drawn({s.width}, DType::f32, {}, 77);
  const auto common = direction.data<const float>();
  const auto D = size_t(s.width);
  for (int64_t t = 0; t < s.tokens; ++t) {
    float* const row = &to[size_t(t) * D];
    if (routing == Routing::learned) {
      for (size_t d = 0; d < D; ++d) row[d] += 0.4f * common[d];
      continue;
    }
    for (int64_t j = 0; j < s.k; ++j) {
      const float* const expert = &rows[size_t((t * s.k + j) % s.experts) * D];
      for (size_t d = 0; d < D; ++d) row[d] += 8 * expert[d];  // far above what noise adds to another expert's logit
    }
  }
  return x;
}

LayerBench::LayerBench(const LayerShape& s, const LayerVariant& v, const BenchOptions& o, int64_t sets)
    : description(parse_probe_layer(toml(s, v, o), "bench")), context(description.context()) {
  const MoeConfig& moe = description.config.moe;
  const double up = 1 / std::sqrt(double(s.width)), down = 1 / std::sqrt(double(s.hidden));
  layer = std::make_unique<MoeLayer>(moe.layer, *moe.router.options, s.width, description.numbers(),
                                     MoeInit{up, up, down}, *comm);
  initialise(*layer, 1);
  name_parameters(*layer);
  Tensor gate;
  each_parameter(*layer, [&](const std::string& path, Parameter& p) {
    if (path == "router.gate") gate = p.master;
  });
  check(gate, "no router.gate to make tokens for");
  for (int64_t i = 0; i < sets; ++i) {
    x.push_back(on_device(converted(tokens_for(s, gate, v.routing, uint64_t(10 + i)), o.dtype), o.device));
    dy.push_back(drawn({s.tokens, s.width}, o.dtype, o.device, uint64_t(1000 + i)));
  }
  move_to(*layer, o.device);
  trained = parameters(*layer);
  const int64_t sequences = std::max<int64_t>(1, s.tokens / 512);
  context.sequence_offsets = even_offsets(s.tokens, sequences, {});
  context.sequence_offsets_there = on_device(context.sequence_offsets, o.device);
}

void LayerBench::forward_backward(int64_t turn) const {
  for (Parameter* p : trained) p->has_grad = false;
  const size_t set = size_t(turn) % x.size();
  Tape tape(trained);
  tape.watch(x[set]);
  const LayerOutput out = forward(turn);
  Tensor total = loss_with(out.y, dy[set]);
  for (const Loss& loss : out.losses) total = add(total, scale(loss.value, loss.coefficient));
  tape.backward(total);
}

double load_ratio_of(const Tensor& load) {
  const Tensor here = on_host(load);
  double most = 0, all = 0;
  for (const double n : here.data<const double>()) most = std::max(most, n), all += n;
  return all > 0 ? most * double(here.size()) / all : 0;
}

/// What one layer cannot avoid: forward 6 · pairs · D · F and the gate's 2 · T · D · E, backward twice as much; where
/// experts compete, all of them answer every token in the forward pass. Bytes: every weight read twice and its gradient
/// written, x and dy read, y and dx written.
BenchCase layer_case(const LayerShape& s, const LayerVariant& v, const BenchOptions& o) {
  const double T = double(s.tokens), D = double(s.width), F = double(s.hidden), E = double(s.experts), k = double(s.k);
  const double one = 6 * D * F, gate = 2 * T * D * E, size = double(size_of(o.dtype));
  BenchCase c{.group = "layer",
              .name = text(v.strategy, v.compete ? ", competing" : "", v.losers ? ", all learn" : "",
                           v.routing == Routing::balanced ? ", balanced" : ""),
              .shape = fmt::format("{} ({}, {}, {}, {}, {})", s.name, s.tokens, s.width, s.hidden, s.experts, s.k),
              .dtype = o.dtype};
  c.flops = (v.compete ? E : k) * T * one + 2 * (v.losers ? E + k : k) * T * one + 3 * gate;
  c.bytes = 3 * E * D * F * (2 * size + 4) + E * D * 3 * 4 + 4 * T * D * size;
  c.set_bytes = int64_t(2 * T * D * size);
  c.tokens = T;
  c.prepare = [=](int64_t sets) {
    const auto bench = std::make_shared<LayerBench>(s, v, o, sets);
    const Tensor load = bench->forward(0).statistics.load;
    return BenchRun{[=](int64_t turn) { bench->forward_backward(turn); }, {{"load_ratio", load_ratio_of(load)}}};
  };
  return c;
}

/// The decision by itself: select, plan; no gradient.
BenchCase selection_case(const LayerShape& s, const LayerVariant& v, const BenchOptions& o) {
  const double T = double(s.tokens), D = double(s.width), E = double(s.experts);
  BenchCase c = layer_case(s, v, o);
  c.name = text(v.strategy, ", select and plan");
  c.flops = 2 * T * D * E;
  c.bytes = T * D * double(size_of(o.dtype)) + E * D * 4 + T * E * 4 + 5 * T * double(s.k) * 4;
  c.prepare = [=](int64_t sets) {
    const auto bench = std::make_shared<LayerBench>(s, v, o, sets);
    return BenchRun{[=](int64_t turn) {
      RouterContext context = bench->context;
      context.experts = &bench->layer->experts();
      context.comm = bench->comm.get();
      const Pairs pairs = bench->layer->router().select(bench->x[size_t(turn) % bench->x.size()], context);
      make_plan(pairs.expert, pairs.token_offsets, s.experts);
    }};
  };
  return c;
}

}  // namespace

BenchCases layer_cases(const BenchOptions& o) {
  std::vector<LayerShape> shapes(std::begin(kLayerShapes), std::end(kLayerShapes));
  shapes.push_back({"S1 with more experts", 4096, 256, 512, 64, 2});  // what so many more cost at equal work
  // Those with published times of other systems on a GPU.
  const std::vector<LayerShape> published = {{"P1", 24576, 1536, 256, 128, 8}, {"P2", 24576, 1536, 512, 64, 4},
                                             {"P3", 24576, 1536, 1024, 32, 2}, {"P4", 40960, 768, 256, 128, 8},
                                             {"P5", 32768, 4096, 512, 128, 8}, {"P6", 32768, 4096, 1024, 64, 4}};
  if (o.tiny) shapes = {{"tiny", 24, 32, 6, 4, 2}};
  BenchCases cases;
  for (const LayerShape& s : shapes) {
    // All of 64 experts answering on a CPU would take longer than all else together.
    const bool long_contest = s.experts > 16 && o.device.kind == Device::cpu;
    for (const LayerVariant& v : kVariants)
      if (o.all || (v.always && !(v.compete && long_contest))) cases.push_back(layer_case(s, v, o));
    for (const LayerVariant& v : kVariants)
      if (!v.compete && v.routing == Routing::learned &&
          (o.all || v.strategy == std::string("token_choice") || s.name == std::string("S4")))
        cases.push_back(selection_case(s, v, o));
  }
  if (o.device.kind == Device::cuda && !o.tiny)
    for (const LayerShape& s : published)
      for (const LayerVariant& v : kVariants)
        if (v.strategy == std::string("token_choice")) cases.push_back(layer_case(s, v, o));
  return cases;
}

}  // namespace agon
