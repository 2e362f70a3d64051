// What a competition step may cost in memory: ROUTING.md section 5's cost contract, against the sparse layer as it is.
#include <doctest/doctest.h>

#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 512, kModel = 48, kHidden = 64, kExperts = 16, kChosen = 2;

/// The most bytes out at once in a forward and a backward pass of a layer.
size_t peak(const RouterOptions& router, const char* activation, bool compete) {
  const auto self = make_self_communicator();
  MoeOptions options = layer_options(kExperts, activation);
  options.expert_width = kHidden;
  MoeLayer layer(options, router, kModel, Precision::fp32(), {0.8, 0.6, 0.6}, *self);
  fill_parameters(layer, 3, 0.3);
  Parameter x({kTokens, kModel}, Precision::fp32());
  copy(x.value, random({kTokens, kModel}, 1, 1, DType::f32));
  const Tensor direction = random({kTokens, kModel}, 2, 1, DType::f32);
  std::vector<Parameter*> all = parameters(layer);
  all.push_back(&x);
  RouterContext context;
  context.compete = compete;
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Tape tape(all);
    const LayerOutput out = layer(x, context);
    Tensor loss = sum(multiply(out.y, direction));
    for (const Loss& l : out.losses) loss = add(loss, scale(l.value, l.coefficient));
    tape.backward(loss);
  }
  CHECK(arena.live() == 0);
  return arena.peak();
}

}  // namespace

TEST_CASE("memory: a competing layer takes a sparse layer's, the winners' rows, four matrices of scores and a chunk") {
  constexpr int64_t N = kTokens * kChosen;
  for (const char* activation : {"swiglu", "gelu"})
    for (const double losers : {0.0, 1.0})
      for (const char* score : {"softplus_mean", "l2_norm"}) {
        CAPTURE(std::string(activation));
        CAPTURE(losers);
        const auto sparse = router_options("token_choice", {{"k", double(kChosen)}});
        const auto competing = router_options(
            "competition",
            {{"k", double(kChosen)}, {"score", score}, {"loser_gradient", losers}, {"temperature", 0.5}});
        const int64_t before = peak(*sparse, activation, false), now = peak(*competing, activation, true);
        const int64_t inner = std::string(activation) == "swiglu" ? 3 * kHidden : 2 * kHidden;
        const int64_t chunk = 4 * kTokens * (inner + kModel);  // one expert's hidden and output rows
        const int64_t allowed = before + 4 * N * kModel + 16 * kTokens * kExperts + chunk;
        MESSAGE("peak ", before, " -> ", now, " bytes, allowed ", allowed);
        CHECK(now <= allowed);
        CHECK(now > before);  // a contest that costs nothing did not take place
      }
}
