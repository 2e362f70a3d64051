#pragma once
#include "moe/layer.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/options.h"
#include "tests/moe/support.h"
#include "tests/moe/toy_router.h"

namespace agon::testing {

/// A router and the shape of the layer around it.
struct LayerCase {
  std::string name;
  std::shared_ptr<RouterOptions> router;
  MoeOptions options;
  bool compete = false;  // the context says so
};

inline constexpr int64_t kWidth = 6;

inline MoeOptions layer_options(int64_t experts, const char* activation = "swiglu", bool bias = false,
                                int64_t shared = 0, bool gated = false) {
  return {.experts = experts,
          .expert_width = 5,
          .activation = activation,
          .bias = bias,
          .shared_experts = shared,
          .shared_gate = gated};
}

/// Token choice with every option set, the other strategies, and the toy whose weights are made from the experts'
/// answers. `experts` a multiple of 4. Every one gives the same result however whole sequences are spread over ranks.
inline std::vector<LayerCase> layer_cases(int64_t experts) {
  const auto token_choice = [&](const char* name, const Settings& settings, const MoeOptions& options) {
    return LayerCase{name, router_options("token_choice", settings), options};
  };
  const auto with = [&](const char* name, const char* strategy, const Settings& settings, const MoeOptions& options) {
    return LayerCase{name, router_options(strategy, settings), options};
  };
  const auto competing = [&](const char* name, const char* strategy, const Settings& settings,
                             const MoeOptions& options) {
    return LayerCase{name, router_options(strategy, settings), options, true};
  };
  const MoeOptions plain = layer_options(experts);
  return {
      token_choice("defaults", {{"balance_scope", "sequence"}}, plain),
      token_choice("mixtral", {{"norm", "topk"}, {"group", 1}}, layer_options(experts, "gelu", true)),
      token_choice("switch",
                   {{"k", 1}, {"capacity_factor", 1}, {"group", 1}, {"jitter", 0.05}, {"z_coefficient", 0.02}}, plain),
      token_choice("deepseek v2",
                   {{"k", 2}, {"scale", 1.5}, {"groups", 4}, {"groups_kept", 2}, {"balance_scope", "sequence"}},
                   layer_options(experts, "swiglu", false, 2)),
      token_choice("deepseek v3",
                   {{"k", 2},
                    {"score", "sigmoid"},
                    {"norm", "topk"},
                    {"scale", 2.5},
                    {"groups", 2},
                    {"groups_kept", 1},
                    {"group_score", "top2"},
                    {"bias_rate", 1e-3},
                    {"balance_scope", "sequence"}},
                   layer_options(experts, "swiglu", false, 1)),
      token_choice("qwen", {{"k", 3}, {"balance_scope", "global"}}, layer_options(experts, "swiglu", false, 1, true)),
      token_choice("everything",
                   {{"k", 3},
                    {"score", "sigmoid"},
                    {"capacity_factor", 0.8},
                    {"drop", "score"},
                    {"group", 1},
                    {"jitter", 0.1},
                    {"scale", 0.7},
                    {"balance_coefficient", 0.5},
                    {"z_coefficient", 0.25},
                    {"entropy_coefficient", 0.125}},
                   layer_options(experts, "relu", true, 1, true)),
      {"toy", std::make_shared<ToyOptions>(), layer_options(experts, "swiglu", true)},
      with("expert choice", "expert_choice", {{"scope", "sequence"}, {"group", 1}},
           layer_options(experts, "gelu", true)),
      with("expert choice of groups", "expert_choice",
           {{"group", 1}, {"k", 1.3}, {"balance_coefficient", 0.3}, {"z_coefficient", 0.1}}, plain),
      with("unified", "unified", {{"scope", "sequence"}, {"group", 1}, {"k", 1.7}},
           layer_options(experts, "swiglu", false, 1)),
      with("unified over all", "unified",
           {{"group", 1},
            {"norm", "row_all"},
            {"alpha", 0.3},
            {"expert_score", "softmax"},
            {"entropy_coefficient", 0.2}},
           plain),
      with("unified over the chosen", "unified", {{"group", 1}, {"norm", "row_selected"}, {"scope", "time_step"}},
           plain),
      with("competition", "competition", {{"balance_scope", "sequence"}}, plain),
      competing("competing", "competition",
                {{"balance_scope", "sequence"}, {"balance_coefficient", 0.7}, {"router_coefficient", 0.8}}, plain),
      competing("competing, all options", "competition",
                {{"k", 3},
                 {"score", "l2_norm"},
                 {"temperature", 0.3},
                 {"theta", 0.7},
                 {"loser_gradient", 1},
                 {"group", 1},
                 {"balance_coefficient", 0.5},
                 {"diversity_coefficient", 0.4},
                 {"router_coefficient", 0},
                 {"z_coefficient", 0.1}},
                layer_options(experts, "gelu", true, 1, true)),
      competing("competing for pairs", "composed_answers",
                {{"k", 1.5},
                 {"score", "silu_mean"},
                 {"selection", "global"},
                 {"weight", "over_selected"},
                 {"scope", "sequence"},
                 {"group", 1},
                 {"balance_scope", "sequence"},
                 {"diversity_coefficient", 0.3},
                 {"theta", 0.5}},
                plain),
      with("composed", "composed",
           {{"score", "sigmoid"}, {"selection", "per_expert"}, {"weight", "over_all"}, {"group", 1}}, plain),
  };
}

inline MoeLayer make_layer(const LayerCase& c, Communicator& comm, Precision precision = Precision::f64()) {
  return MoeLayer(c.options, *c.router, kWidth, precision, {0.8, 0.6, 0.6}, comm);
}

/// ⟨fixed direction, y⟩ + share · Σ coefficient · loss: what a training step differentiates. The direction's element
/// (t, d) belongs to the global token first + t.
inline Tensor total(const LayerOutput& out, double share, int64_t first, int64_t tokens) {
  const Tensor direction = slice(random({tokens, kWidth}, 99), first, first + out.y.shape(0));
  Tensor loss = sum(multiply(out.y, converted(direction, out.y.dtype())));
  for (const Loss& l : out.losses) loss = add(loss, scale(l.value, share * l.coefficient));
  return loss;
}

}  // namespace agon::testing
