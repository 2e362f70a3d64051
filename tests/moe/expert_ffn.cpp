#include "tests/moe/expert_ffn.h"

#include <doctest/doctest.h>

#include "core/parallel.h"
#include "moe/dispatch.h"
#include "tests/moe/against_cpu.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kWidth = 6, kHidden = 5;

/// expert_ffn, or expert_answers, and its plain composition on the same numbers.
struct Both {
  Result fused, plain;
};
enum class Op { weighed, answers };

Both run_both(int64_t tokens, int64_t experts_total, int64_t spare, Activation activation, bool bias,
              Precision precision, Device device = {}, Op op = Op::weighed) {
  ExpertGroup experts(experts_total, kWidth, kHidden, activation, bias, precision, 1, 1);
  fill_parameters(experts, 23);
  move_to(experts, device);
  const RandomPairs pairs = random_pairs(tokens, experts_total, 29, spare);
  const Plan plan =
      make_plan(agon::on_device(pairs.expert, device), agon::on_device(pairs.token_offsets, device), experts_total);
  Parameter x = parameter(random({tokens, kWidth}, 1), precision, device);
  Parameter weight = parameter(random({pairs.expert.size()}, 2), in_master(precision), device);
  const bool weighed = op == Op::weighed;
  return {differentiate(experts, x, weight,
                        [&](const Tensor& in, const Tensor& w) {
                          return weighed ? expert_ffn(in, plan, w, experts) : expert_answers(in, plan, experts);
                        }),
          differentiate(experts, x, weight, [&](const Tensor& in, const Tensor& w) {
            const Tensor answers = experts(permute(in, plan), plan.offsets);
            return weighed ? combine(answers, w, plan) : answers;
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

TEST_CASE("expert_answers: the bits of its plain composition, forward and backward") {
  for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()})
    for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu})
      for (const bool bias : {false, true})
        for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {40, 3, 9}, {700, 8, 1}}) {
          CAPTURE(int(precision.compute));
          CAPTURE(int(activation));
          CAPTURE(bias);
          CAPTURE(tokens);
          const Both both = run_both(tokens, experts, spare, activation, bias, precision, {}, Op::answers);
          CHECK(identical(both.fused.y, both.plain.y));
          for (size_t i = 0; i < both.plain.gradients.size(); ++i) {
            CAPTURE(i);
            CHECK(identical(both.fused.gradients[i], both.plain.gradients[i]));
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
  {
    Tape tape(all);
    const Tensor answers = expert_answers(x, plan, experts);
    CHECK(int64_t(arena.live()) <= 4 * (N * 2 * F + N * D) + 1024);
  }
  CHECK(arena.live() == 0);
}

GPU_CASE("expert_ffn: the weights' gradients and what they multiply, as on the CPU, rows past the last one untouched") {
  for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {13, 4, 0}, {9, 3, 50}})
    for (const bool bias : {false, true})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(tokens);
        CAPTURE(bias);
        const int64_t D = 41, F = 32;
        const RandomPairs pairs = random_pairs(tokens, experts, 29, spare);
        const Plan plan = make_plan(pairs.expert, pairs.token_offsets, experts);
        const int64_t N = pairs.expert.size();
        const Tensor hidden = random({N, F}, 1, 1, dtype), weight = random({N}, 2, 1, DType::f32),
                     down_bias = bias ? random({experts, D}, 3, 1, dtype) : Tensor();
        struct Weighed {
          Tensor dweight, dhidden, dy;
        };
        const auto weigh = [&](Device device) {
          const auto at = [&](const Tensor& t) { return agon::on_device(t, device); };
          const Weighed w{Tensor({N}, DType::f32, device), at(random({N, F}, 4, 1, dtype)),
                          at(random({N, D}, 5, 1, dtype))};
          run<ExpertFfn::Weigh>(device, w.dweight, w.dhidden, w.dy, at(hidden), at(weight), at(down_bias),
                                on_device(plan, device));
          return w;
        };
        const Weighed expected = weigh({}), found = weigh(device_of_case());
        CHECK(relative_error(found.dweight, expected.dweight) < 1e-5);
        CHECK(identical(found.dhidden, expected.dhidden));
        CHECK(identical(found.dy, expected.dy));
        const ThreadOrder changed(1);
        const Weighed again = weigh(device_of_case());
        CHECK(identical(again.dweight, found.dweight));
        CHECK(identical(again.dhidden, found.dhidden));
      }
}

GPU_CASE("expert_ffn: activations in place, as on the CPU") {
  for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu}) {
    CAPTURE(int(activation));
    const Tensor before = random({7, width_before(activation, 24)}, 1, 1, DType::f32),
                 dhidden = random({7, 24}, 2, 1, DType::f32);
    const auto both = [&](Device device) {
      const Tensor in = clone(agon::on_device(before, device)), hidden({7, 24}, DType::f32, device);
      ExpertFfn::activate(hidden, in, activation);
      ExpertFfn::activate_backward(in, agon::on_device(dhidden, device), activation);
      return std::pair(hidden, in);
    };
    const auto expected = both({}), found = both(device_of_case());
    CHECK(relative_error(found.first, expected.first) < 1e-6);
    CHECK(relative_error(found.second, expected.second) < 1e-6);
  }
}

GPU_CASE("expert_ffn, expert_answers: as on the CPU in f64, forward and backward") {
  for (const Op op : {Op::weighed, Op::answers})
    for (const Activation activation : {Activation::swiglu, Activation::gelu, Activation::relu})
      for (const bool bias : {false, true})
        for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {13, 4, 0}, {9, 3, 40}}) {
          CAPTURE(int(activation));
          CAPTURE(bias);
          CAPTURE(tokens);
          const Both expected = run_both(tokens, experts, spare, activation, bias, Precision::f64(), {}, op);
          for (const Precision precision : {Precision::fp32(), Precision::bf16()}) {
            const double tolerance = precision.compute == DType::bf16 ? 3e-2 : 1e-5;
            const Both found = run_both(tokens, experts, spare, activation, bias, precision, device_of_case(), op);
            CHECK(relative_error(found.fused.y, expected.fused.y) < tolerance);
            CHECK(relative_error(found.plain.y, expected.plain.y) < tolerance);
            for (size_t i = 0; i < expected.plain.gradients.size(); ++i) {
              CAPTURE(i);
              CHECK(relative_error(found.fused.gradients[i], expected.fused.gradients[i]) < tolerance);
              CHECK(relative_error(found.plain.gradients[i], expected.plain.gradients[i]) < tolerance);
            }
            const ThreadOrder changed(1);
            const Both again = run_both(tokens, experts, spare, activation, bias, precision, device_of_case(), op);
            CHECK(identical(again.fused.y, found.fused.y));
            for (size_t i = 0; i < expected.plain.gradients.size(); ++i)
              CHECK(identical(again.fused.gradients[i], found.fused.gradients[i]));
          }
        }
}

GPU_CASE("expert_ffn: nothing crosses between host and GPU, forward and backward") {
  ExpertGroup experts(4, 8, 6, Activation::swiglu, true, Precision::bf16(), 1, 1);
  fill_parameters(experts, 5);
  move_to(experts, device_of_case());
  const RandomPairs pairs = random_pairs(30, 4, 9, 7);
  const Tensor expert = there(pairs.expert), offsets = there(pairs.token_offsets),
               x = there(random({30, 8}, 1, 1, DType::bf16)), weight = there(random(expert.shape(), 2, 1, DType::f32)),
               dy = there(random({30, 8}, 3, 1, DType::bf16)), loss = there(Tensor({1}, DType::f32));
  const Crossings before = crossings();
  {
    const std::vector<Parameter*> all = parameters(experts);
    Tape tape(all);
    tape.watch(weight);
    const Tensor y = expert_ffn(x, make_plan(expert, offsets, 4), weight, experts);
    tape.backward(record("given", {&y}, loss, [y, dy](Gradients& g, const Tensor&) { g.add(y, dy); }));
  }
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
}
