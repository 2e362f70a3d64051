#include "moe/experts.h"

#include <doctest/doctest.h>

#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("experts: each group of rows meets its own expert, which is a feed-forward with the expert's slice") {
  for (const char* name : {"swiglu", "gelu", "relu"})
    for (const bool bias : {false, true}) {
      CAPTURE(name);
      const Activation activation = activation_named(name);
      ExpertGroup experts(3, 5, 4, activation, bias, Precision::f64(), 1, 1);
      fill_parameters(experts, 3);
      const Tensor rows = random({7, 5}, 1), y = experts(rows, tensor_of<int32_t>({0, 4, 4, 7}));
      for (const auto& [expert, begin, end] : {std::tuple{0, 0, 4}, {2, 4, 7}}) {
        FeedForward one(5, 4, activation, bias, Precision::f64(), 1, 1);
        copy(one.up.value, slice(experts.up, expert, expert + 1).reshape(one.up.value.shape()));
        copy(one.down.value, slice(experts.down, expert, expert + 1).reshape(one.down.value.shape()));
        if (bias) {
          copy(one.up_bias.value, slice(experts.up_bias, expert, expert + 1).reshape(one.up_bias.value.shape()));
          copy(one.down_bias.value, slice(experts.down_bias, expert, expert + 1).reshape(one.down_bias.value.shape()));
        }
        CHECK(relative_error(slice(y, begin, end), one(slice(rows, begin, end))) < 1e-14);
      }
    }
}

TEST_CASE("experts: parameters are named as files name them, matrices decay, biases start at zero") {
  ExpertGroup gated(2, 3, 4, Activation::swiglu, true, Precision::bf16(), 0.5, 0.25),
      plain(2, 3, 4, Activation::relu, false, {}, 1, 1);
  std::vector<std::string> names;
  each_parameter(gated, [&](const std::string& name, Parameter& p) {
    names.push_back(name);
    CHECK(p.group == Group::expert);
    CHECK(p.decays == (name == "gate_up" || name == "down"));
  });
  each_parameter(plain, [&](const std::string& name, Parameter&) { names.push_back(name); });
  CHECK(names == std::vector<std::string>{"gate_up", "down", "up_bias", "down_bias", "up", "down"});
  CHECK(gated.up.value.shape() == Shape{2, 8, 3});
  CHECK(gated.up.deviation == 0.5);
  CHECK(gated.down.deviation == 0.25);
  CHECK(gated.down_bias.init == Init::zero);
  CHECK(plain.up.value.shape() == Shape{2, 4, 3});
  CHECK_THROWS_WITH_AS(activation_named("silu"), doctest::Contains("swiglu, gelu, relu"), UserError);
}
