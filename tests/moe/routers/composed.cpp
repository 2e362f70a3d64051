#include <doctest/doctest.h>

#include "moe/thresholds.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 12;

struct Named {
  const char* strategy;
  Settings settings;
};

}  // namespace

TEST_CASE("composed: of another strategy's own axes it is that strategy to the bit") {
  const Tensor x = random({kTokens, kWidth}, 4);
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 5, int32_t(kTokens)});
  struct Twin {
    Named one, other;
    bool compete = false;
  };
  const Twin twins[] = {
      {{"token_choice", {{"balance_coefficient", 0}}}, {"composed", {}}},
      {{"token_choice", {{"score", "sigmoid"}, {"norm", "topk"}, {"balance_coefficient", 0}}},
       {"composed", {{"score", "sigmoid"}, {"weight", "over_selected"}}}},
      {{"expert_choice", {{"scope", "sequence"}}}, {"composed", {{"selection", "per_expert"}, {"scope", "sequence"}}}},
      {{"unified", {{"k", 1.5}, {"norm", "row_all"}}},
       {"composed", {{"k", 1.5}, {"score", "unified"}, {"selection", "global"}, {"weight", "over_all"}}}},
      {{"competition", {{"score", "l2_norm"}}},
       {"composed_answers", {{"score", "l2_norm"}, {"weight", "over_selected"}}}},
      {{"competition", {}}, {"composed_answers", {{"weight", "over_selected"}}}, true},
      {{"competition", {{"score", "silu_mean"}, {"loser_gradient", 1}}},
       {"composed_answers", {{"score", "silu_mean"}, {"loser_gradient", 1}, {"weight", "over_selected"}}},
       true}};
  for (const Twin& twin : twins) {
    CAPTURE(std::string(twin.one.strategy));
    context.compete = twin.compete;
    std::vector<Tensor> results[2];
    for (int i : {0, 1}) {
      const Named& n = i == 0 ? twin.one : twin.other;
      const auto self = make_self_communicator();
      MoeLayer m(layer_options(4), *router_options(n.strategy, n.settings), kWidth, Precision::f64(), {0.8, 0.6, 0.6},
                 *self);
      fill_parameters(m, 3);
      const std::vector<Parameter*> all = parameters(m);
      Tape tape(all);
      const LayerOutput out = m(x, context);
      tape.backward(total(out, 1, 0, kTokens));
      results[i].push_back(out.y);
      for (const Parameter* p : all) results[i].push_back(p->grad);
      for (const Loss& l : out.losses) results[i].push_back(l.value);
    }
    REQUIRE(results[0].size() == results[1].size());
    for (size_t i = 0; i < results[0].size(); ++i) CHECK(identical(results[0][i], results[1][i]));
  }
}

TEST_CASE("composed: thresholds for what takes from a pool, on a contest those of the router's scores") {
  const auto thresholds = [](const char* strategy, const Settings& settings) {
    const auto router = router_options(strategy, settings)->make({kWidth, 4, Precision::fp32(), 0.5});
    return router->thresholds() ? router->thresholds()->value.size() : 0;
  };
  CHECK(thresholds("composed", {}) == 0);
  CHECK(thresholds("composed", {{"selection", "per_expert"}}) == 4);
  CHECK(thresholds("composed", {{"selection", "global"}}) == 1);
  const auto self = make_self_communicator();
  MoeLayer layer(layer_options(4), *router_options("composed_answers", {{"selection", "global"}}), kWidth,
                 Precision::f64(), {0.8, 0.6, 0.6}, *self);
  fill_parameters(layer, 3);
  RouterContext context;
  const Tensor x = random({kTokens, kWidth}, 4), usual = layer(x, context).statistics.candidates;
  context.compete = true;
  CHECK(identical(layer(x, context).statistics.candidates, usual));
}
