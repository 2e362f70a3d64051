#include "moe/dispatch.h"

#include <doctest/doctest.h>

#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Case {
  Plan plan;
  int64_t tokens, pairs;
};

Case make_case(int64_t tokens, int64_t experts, int64_t spare = 3) {
  const RandomPairs pairs = random_pairs(tokens, experts, 5, spare);
  return {make_plan(pairs.expert, pairs.token_offsets, experts), tokens, pairs.expert.size()};
}

}  // namespace

TEST_CASE("dispatch: a row is its token's vector, combined with weight 1 it comes back as often as it was chosen") {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const Case c = make_case(19, 5);
    const Tensor x = random({19, 300}, 1, 1, dtype), rows = permute(x, c.plan);
    CHECK(rows.shape() == Shape{c.pairs, 300});
    const auto pair_of_row = c.plan.pair_of_row.data<const int32_t>();
    visit_float(dtype, [&]<class T>() {
      for (int64_t n = 0; n < c.pairs; ++n)
        for (int64_t d = 0; d < 300; d += 299) {
          const int32_t i = pair_of_row[n];
          const float expected = i < 0 ? 0.f : float(x.data<T>()[c.plan.token_of_pair.data<int32_t>()[i] * 300 + d]);
          CHECK(float(rows.data<T>()[n * 300 + d]) == expected);
        }
    });
    const Tensor sum = combine(rows, c.plan);
    const auto offset = c.plan.token_offsets.data<const int32_t>();
    for (int64_t t = 0; t < 19; ++t) {
      const int count = offset[t + 1] - offset[t];
      const double found = converted(sum, DType::f64).data<double>()[t * 300],
                   one = converted(x, DType::f64).data<double>()[t * 300];
      CHECK(found == doctest::Approx(count * one).epsilon(0.01));
      if (count == 0) CHECK(found == 0);
    }
  }
}

TEST_CASE("dispatch: permute and combine are adjoint, by_row and by_pair are inverse and adjoint") {
  const Case c = make_case(23, 6);
  const Tensor x = random({23, 7}, 1), rows = random({c.pairs, 7}, 2);
  CHECK(dot(permute(x, c.plan), rows) == doctest::Approx(dot(x, combine(rows, c.plan))));

  const Tensor values = random({c.pairs}, 3), of_rows = random({c.pairs}, 4);
  CHECK(dot(by_row(values, c.plan), of_rows) == doctest::Approx(dot(values, by_pair(of_rows, c.plan))));
  const Tensor there_and_back = by_pair(by_row(values, c.plan), c.plan);
  for (int64_t i = 0; i < c.pairs; ++i)
    CHECK(there_and_back.data<double>()[i] ==
          (c.plan.row_of_pair.data<int32_t>()[i] < 0 ? 0 : values.data<double>()[i]));
}

TEST_CASE("dispatch: gradients agree with finite differences") {
  const Case c = make_case(9, 4);
  const std::vector<Tensor> one{random({9, 5}, 1)}, of_pairs{random({c.pairs, 5}, 2)};
  CHECK(gradient_error(one, [&](const auto& in) { return probe(permute(in[0], c.plan), 3); }) < 1e-8);
  CHECK(gradient_error(of_pairs, [&](const auto& in) { return probe(combine(in[0], c.plan), 3); }) < 1e-8);
  CHECK(gradient_error(of_pairs, [&](const auto& in) { return probe(by_row(in[0], c.plan), 3); }) < 1e-8);
  CHECK(gradient_error(of_pairs, [&](const auto& in) { return probe(by_pair(in[0], c.plan), 3); }) < 1e-8);
  CHECK(gradient_error({random({c.pairs, 5}, 2), random({c.pairs}, 4)},
                       [&](const auto& in) { return probe(combine(in[0], in[1], c.plan), 3); }) < 1e-8);
}

TEST_CASE("dispatch: f32 weights beside bf16 rows, against f64") {
  const Case c = make_case(12, 4);
  const Tensor rows = random({c.pairs, 33}, 1, 1, DType::bf16), weight = random({c.pairs}, 2, 1, DType::f32);
  const Tensor y = combine(rows, weight, c.plan);
  const Tensor exact = combine(converted(rows, DType::f64), converted(weight, DType::f64), c.plan);
  CHECK(y.dtype() == DType::bf16);
  CHECK(relative_error(y, exact) < 4e-3);
  CHECK_THROWS_AS(combine(rows, converted(weight, DType::bf16), c.plan), Error);
}

TEST_CASE("dispatch: no tokens, no pairs") {
  const Plan none = make_plan(Tensor({0}, DType::i32), tensor_of<int32_t>({0}), 3);
  CHECK(permute(Tensor({0, 4}, DType::f32), none).shape() == Shape{0, 4});
  CHECK(combine(Tensor({0, 4}, DType::f32), none).shape() == Shape{0, 4});
  const Plan idle = make_plan(Tensor({0}, DType::i32), tensor_of<int32_t>({0, 0, 0}), 3);
  const Tensor y = combine(Tensor({0, 4}, DType::f32), Tensor({0}, DType::f32), idle);
  for (float v : y.data<float>()) CHECK(v == 0);
}

GPU_CASE("dispatch: all directions as on the CPU, forward and backward") {
  // Widths that fill 16 bytes and that do not; tokens and experts nobody chose; bounds far above what is in use.
  for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {1, 1, 4}, {9, 4, 3}, {23, 6, 40}})
    for (const int64_t width : {1, 16, 33}) {
      CAPTURE(tokens);
      CAPTURE(width);
      const Case c = make_case(tokens, experts, spare);
      const auto plan = [&](const Tensor& beside) { return on_device(c.plan, beside.device()); };
      const Tensor x = random({tokens, width}, 1), rows = random({c.pairs, width}, 2), weight = random({c.pairs}, 3);
      op_case(against_cpu({x}, [&](const auto& in) { return permute(in[0], plan(in[0])); }));
      op_case(against_cpu({rows}, [&](const auto& in) { return combine(in[0], plan(in[0])); }));
      op_case(against_cpu({rows, weight}, [&](const auto& in) { return combine(in[0], wide(in[1]), plan(in[0])); }));
      op_case(against_cpu({rows}, [&](const auto& in) { return by_row(in[0], plan(in[0])); }));
      op_case(against_cpu({weight}, [&](const auto& in) { return by_pair(in[0], plan(in[0])); }));
    }
}

GPU_CASE("dispatch: no tokens, no pairs, and lists longer and shorter than the plan's bound") {
  const Case c = make_case(12, 4, 9);
  const Plan plan = on_device(c.plan, device_of_case());
  for (const int64_t length : {c.pairs - 9, c.pairs, c.pairs + 5}) {
    const Tensor values = random({length, 3}, 1, 1, DType::f32);
    const auto both = [&](const Tensor& in, const Plan& of) {
      Tape tape({});
      tape.watch(in);
      const Tensor y = by_row(in, of);
      tape.backward(probe(y, 2));
      return std::pair(y, tape.gradient(in));
    };
    const auto found = both(there(values), plan), expected = both(values, c.plan);
    CHECK(identical(found.first, expected.first));
    CHECK(identical(found.second, expected.second));
  }
  const Plan none = make_plan(there(Tensor({0}, DType::i32)), there(tensor_of<int32_t>({0})), 3);
  CHECK(permute(Tensor({0, 4}, DType::f32, device_of_case()), none).shape() == Shape{0, 4});
  const Plan idle = make_plan(there(Tensor({0}, DType::i32)), there(tensor_of<int32_t>({0, 0, 0})), 3);
  const Tensor y =
      on_host(combine(Tensor({0, 4}, DType::f32, device_of_case()), Tensor({0}, DType::f32, device_of_case()), idle));
  for (float v : y.data<float>()) CHECK(v == 0);
}
