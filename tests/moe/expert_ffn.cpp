#include "moe/expert_ffn.h"

#include <doctest/doctest.h>

#include "core/parallel.h"
#include "moe/dispatch.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Outputs and gradients of ⟨direction, f(x, weight)⟩.
struct Result {
  Tensor y;
  std::vector<Tensor> gradients;  // x, weight, parameters of the experts
};

template <class F>
Result differentiate(ExpertGroup& experts, Parameter& x, Parameter& weight, F&& f) {
  std::vector<Parameter*> all{&x, &weight};
  for (Parameter* p : parameters(experts)) all.push_back(p);
  for (Parameter* p : all) p->has_grad = false;
  Tape tape(all);
  Result result{f(x, weight), {}};
  tape.backward(probe(result.y, 17));
  for (Parameter* p : all) result.gradients.push_back(clone(p->grad));
  return result;
}

Parameter parameter(const Tensor& values, Precision precision) {
  Parameter p(values.shape(), precision);
  copy(p.master, values);
  p.refresh();
  return p;
}

/// expert_ffn and its plain composition on the same numbers.
struct Both {
  Result fused, plain;
};

Both run_both(int64_t tokens, int64_t experts_total, int64_t spare, Activation activation, bool bias,
              Precision precision) {
  const int64_t D = 6, F = 5;
  ExpertGroup experts(experts_total, D, F, activation, bias, precision, 1, 1);
  fill_parameters(experts, 23);
  const RandomPairs pairs = random_pairs(tokens, experts_total, 29, spare);
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, experts_total);
  Parameter x = parameter(random({tokens, D}, 1), precision);
  Parameter weight = parameter(random({pairs.expert.size()}, 2), in_master(precision));
  return {differentiate(experts, x, weight,
                        [&](const Tensor& in, const Tensor& w) { return expert_ffn(in, plan, w, experts); }),
          differentiate(experts, x, weight, [&](const Tensor& in, const Tensor& w) {
            return combine(experts(permute(in, plan), plan.offsets), w, plan);
          })};
}

}  // namespace

TEST_CASE("expert_ffn: equals its plain composition, forward and backward") {
  for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu})
    for (const bool bias : {false, true})
      for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {13, 4, 0}, {40, 3, 9}, {200, 8, 1}}) {
        CAPTURE(int(activation));
        CAPTURE(bias);
        CAPTURE(tokens);
        const Both both = run_both(tokens, experts, spare, activation, bias, Precision::f64());
        CHECK(relative_error(both.fused.y, both.plain.y) < 1e-14);
        REQUIRE(both.fused.gradients.size() == both.plain.gradients.size());
        for (size_t i = 0; i < both.plain.gradients.size(); ++i) {
          CAPTURE(i);
          CHECK(relative_error(both.fused.gradients[i], both.plain.gradients[i]) < 1e-13);
        }
      }
}

TEST_CASE("expert_ffn: f32 and bf16 stay near their plain composition") {
  for (const Precision precision : {Precision::fp32(), Precision::bf16()})
    for (const bool bias : {false, true}) {
      const Both both = run_both(60, 4, 2, Activation::swiglu, bias, precision);
      const double tolerance = precision.compute == DType::bf16 ? 2e-2 : 1e-5;
      CHECK(relative_error(both.fused.y, both.plain.y) < tolerance);
      for (size_t i = 0; i < both.plain.gradients.size(); ++i)
        CHECK(relative_error(both.fused.gradients[i], both.plain.gradients[i]) < tolerance);
    }
}

TEST_CASE("expert_ffn: finite differences of everything that has a gradient") {
  for (const Activation activation : {Activation::swiglu, Activation::gelu}) {
    ExpertGroup experts(3, 4, 5, activation, true, Precision::f64(), 1, 1);
    fill_parameters(experts, 3);
    const RandomPairs pairs = random_pairs(9, 3, 7, 2);
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 3);
    Parameter x = parameter(random({9, 4}, 1), Precision::f64()),
              weight = parameter(random(pairs.expert.shape(), 2), Precision::f64());
    std::vector<Parameter*> all{&x, &weight};
    for (Parameter* p : parameters(experts)) all.push_back(p);
    CHECK(gradient_error(all, [&] { return probe(expert_ffn(x, plan, weight, experts), 11); }) < 1e-7);
  }
}

TEST_CASE(
    "expert_ffn: a token without experts gets zero, the bound on pairs changes no bit, nor does the thread count") {
  ExpertGroup experts(4, 8, 6, Activation::swiglu, true, Precision::fp32(), 1, 1);
  fill_parameters(experts, 5);
  const Tensor x = random({30, 8}, 1, 1, DType::f32);
  const auto forward = [&](int64_t spare) {
    const RandomPairs pairs = random_pairs(30, 4, 9, spare);
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
    return expert_ffn(x, plan, random(pairs.expert.shape(), 2, 1, DType::f32), experts);
  };
  const Tensor y = forward(0);
  for (int64_t d = 0; d < 8; ++d) CHECK(y.data<float>()[d] == 0);
  CHECK(identical(y, forward(17)));
  const int before = threads();
  set_threads(3);
  CHECK(identical(y, forward(5)));
  set_threads(before);
}

TEST_CASE("expert_ffn: keeps x and what goes into the activation, nothing else of the size of the rows") {
  const int64_t tokens = 64, D = 64, F = 32;
  ExpertGroup experts(4, D, F, Activation::swiglu, false, Precision::fp32(), 1, 1);
  fill_parameters(experts, 5);
  const RandomPairs pairs = random_pairs(tokens, 4, 9);
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
  const int64_t N = pairs.expert.size();
  Parameter weight = parameter(random({N}, 2), Precision::fp32());
  const Tensor x = random({tokens, D}, 1, 1, DType::f32);
  std::vector<Parameter*> all = parameters(experts);
  all.push_back(&weight);
  Arena arena;
  const Arena::Scope scope(arena);
  {
    Tape tape(all);
    const Tensor y = expert_ffn(x, plan, weight, experts);
    CHECK(int64_t(arena.live()) <= 4 * (N * 2 * F + tokens * D) + 1024);
  }
  CHECK(arena.live() == 0);
}
