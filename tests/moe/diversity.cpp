#include "moe/diversity.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("diversity: the mean cosine of a token's pairs of answers, over tokens with at least two") {
  const int64_t T = 9, E = 5, D = 4;
  const RandomPairs pairs = random_pairs(T, E, 3, 2);
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, E);
  const Tensor rows = random({pairs.expert.size(), D}, 7);
  const auto offset = pairs.token_offsets.data<int32_t>(), row = plan.row_of_pair.data<int32_t>();
  double sum = 0;
  int tokens = 0;
  const Tensor whole = tensor_of<int32_t>({0, int32_t(T)});
  for (int64_t t = 0; t < T; ++t) {
    const int n = offset[t + 1] - offset[t];
    if (n < 2) continue;
    ++tokens;
    double cosines = 0;
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i)
      for (int32_t j = offset[t]; j < offset[t + 1]; ++j) {
        if (i == j) continue;
        double ij = 0, ii = 0, jj = 0;
        for (int64_t d = 0; d < D; ++d) {
          const double a = rows.data<double>()[row[i] * D + d], b = rows.data<double>()[row[j] * D + d];
          ij += a * b, ii += a * a, jj += b * b;
        }
        cosines += ij / std::sqrt(ii * jj);
      }
    sum += cosines / double(n * (n - 1));
  }
  REQUIRE(tokens > 2);
  CHECK(diversity(rows, plan, whole).item() == doctest::Approx(sum / tokens).epsilon(1e-13));
  CHECK(gradient_error({rows}, [&](const std::vector<Parameter>& in) { return diversity(in[0], plan, whole); }) < 1e-7);
}

TEST_CASE("diversity: equal answers give 1, single ones 0, answers of zero no NaN") {
  const Plan two = make_plan(tensor_of<int32_t>({0, 1, 1, 0}), tensor_of<int32_t>({0, 2, 4}), 2);
  const Tensor group = tensor_of<int32_t>({0, 2});
  Tensor rows({4, 3}, DType::f32);
  fill(rows, 2);
  CHECK(diversity(rows, two, group).item() == doctest::Approx(1).epsilon(1e-6));
  const Plan single = make_plan(tensor_of<int32_t>({0, 1}), tensor_of<int32_t>({0, 1, 2}), 2);
  CHECK(diversity(Tensor({2, 3}, DType::f32).zero(), single, group).item() == 0);
  CHECK(gradient_error({random({2, 3}, 1)},
                       [&](const std::vector<Parameter>& in) { return diversity(in[0], single, group); }) == 0);
  Parameter zero({4, 3}, Precision::f64());
  Parameter* const all[] = {&zero};
  Tape tape(all);
  const Tensor loss = diversity(zero, two, group);
  CHECK(loss.item() == 0);
  tape.backward(loss);
  for (double v : zero.grad.data<double>()) CHECK(v == 0);
}

TEST_CASE("diversity: groups are averaged by their tokens, whatever the number that counts in each") {
  // Tokens with 2, 0, 1 | 2, 3 rows.
  const Tensor expert = tensor_of<int32_t>({0, 1, 2, 0, 2, 0, 1, 2}), offsets = tensor_of<int32_t>({0, 2, 2, 3, 5, 8});
  const Tensor rows = random({8, 4}, 7);
  const Plan plan = make_plan(expert, offsets, 3);
  const auto part = [&](int32_t first, int32_t last) {  // these tokens by themselves
    std::vector<int32_t> only, begin{0};
    const auto offset = offsets.data<int32_t>();
    for (int32_t t = first; t < last; ++t) {
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) only.push_back(expert.data<int32_t>()[i]);
      begin.push_back(int32_t(only.size()));
    }
    const Plan p = make_plan(tensor_of(only), tensor_of(begin), 3);
    const Tensor own({int64_t(only.size()), 4}, DType::f64);
    for (int32_t i = offset[first]; i < offset[last]; ++i)
      std::copy_n(rows.data<double>().begin() + plan.row_of_pair.data<int32_t>()[i] * 4, 4,
                  own.data<double>().begin() + p.row_of_pair.data<int32_t>()[i - offset[first]] * 4);
    return diversity(own, p, tensor_of<int32_t>({0, last - first})).item();
  };
  const Tensor groups = tensor_of<int32_t>({0, 3, 5});
  CHECK(diversity(rows, plan, groups).item() == doctest::Approx(0.6 * part(0, 3) + 0.4 * part(3, 5)).epsilon(1e-13));
  CHECK(gradient_error({rows}, [&](const std::vector<Parameter>& in) { return diversity(in[0], plan, groups); }) <
        1e-7);
}

namespace {

Plan plan_there(const Plan& plan) {
  return {there(plan.token_of_pair), there(plan.pair_of_row), there(plan.row_of_pair), there(plan.offsets),
          there(plan.token_offsets)};
}

}  // namespace

GPU_CASE("diversity: as on the CPU, over groups of any length") {
  const auto check_on_gpu = [](int64_t T, int64_t E, int64_t D, const std::vector<int32_t>& groups) {
    CAPTURE(T);
    CAPTURE(E);
    CAPTURE(D);
    const RandomPairs pairs = random_pairs(T, E, 3, 2);
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, E);
    const Tensor rows = random({pairs.expert.size(), D}, 7), scope = tensor_of(groups);
    const auto loss_of = [&](const std::vector<Tensor>& in) {
      return diversity(in[0], plan_there(plan), there(scope));
    };
    check_loss_on_gpu({rows}, loss_of);
    check_loss_on_gpu({rows}, loss_of, DType::bf16, 1e-2);
  };
  check_on_gpu(150, 5, 4, {0, 3, 3, 20, 150});
  check_on_gpu(20, 9, 67, {0, 20});
  check_on_gpu(9, 2, 3, {0, 4, 9});
  check_on_gpu(5, 1, 3, {0, 5});  // no token has two
  check_on_gpu(0, 3, 4, {0, 0});
}

GPU_CASE("diversity: answers of zero give no NaN") {
  const Plan two = plan_there(make_plan(tensor_of<int32_t>({0, 1, 1, 0}), tensor_of<int32_t>({0, 2, 4}), 2));
  const Tensor scope = there(tensor_of<int32_t>({0, 2})), zero = there(Tensor({4, 3}, DType::f32).zero());
  const LossAndGradients found =
      differentiate({zero}, [&](const std::vector<Tensor>& in) { return diversity(in[0], two, scope); });
  CHECK(found.loss.item() == 0);
  CHECK(relative_error(found.gradients[0], zero) == 0);
}
