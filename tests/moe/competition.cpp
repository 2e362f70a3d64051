#include "moe/competition.h"

#include <doctest/doctest.h>

#include <cmath>

#include "moe/dispatch.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 8, kExperts = 4, kWidth = 5;

/// Pairs with 0 to 3 winners a token and the scores of all answers; rows are made up, so winners' scores are others.
struct Case {
  RandomPairs chosen = random_pairs(kTokens, kExperts, 6, 2);
  Pairs pairs;
  Plan plan = make_plan(chosen.expert, chosen.token_offsets, kExperts);
  Tensor rows = random({chosen.expert.size(), kWidth}, 3), affinity = random({kTokens, kExperts}, 4);

  Case() {
    for (double& v : affinity.data<double>()) v = std::abs(v) + 0.1;
    pairs.expert = pairs.chosen = chosen.expert;
    pairs.token_offsets = pairs.chosen_offsets = chosen.token_offsets;
    pairs.affinity = affinity;
    pairs.logits = random({kTokens, kExperts}, 5);
    pairs.scores = affinity;
  }
};

}  // namespace

TEST_CASE("competition parts: weights by every rule, losers a constant") {
  const Case c;
  const auto offset = c.pairs.token_offsets.data<int32_t>(), expert = c.pairs.expert.data<int32_t>();
  for (const AnswerScore score : {AnswerScore::l2_norm, AnswerScore::silu_mean}) {
    const Contest contest(score, c.pairs, c.rows, c.plan);
    CHECK(relative_error(contest.answer, by_pair(answer_scores(c.rows, score), c.plan)) == 0);
    const auto f = [&](double a) { return score == AnswerScore::silu_mean ? std::exp(a) : a; };
    const auto answer = contest.answer.data<double>();
    const Tensor over_selected = contest.weights(WeightRule::over_selected),
                 over_all = contest.weights(WeightRule::over_all);
    CHECK(identical(contest.weights(WeightRule::raw), contest.answer));
    for (int64_t t = 0; t < kTokens; ++t) {
      double won = 0, all = 0;
      std::vector<double> row(c.affinity.data<double>().begin() + t * kExperts,
                              c.affinity.data<double>().begin() + (t + 1) * kExperts);
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) {
        won += f(answer[i]);
        row[size_t(expert[i])] = answer[i];
      }
      for (double a : row) all += f(a);
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) {
        CHECK(over_selected.data<double>()[i] == doctest::Approx(f(answer[i]) / won).epsilon(1e-13));
        CHECK(over_all.data<double>()[i] == doctest::Approx(f(answer[i]) / all).epsilon(1e-13));
      }
    }
    for (const WeightRule rule : {WeightRule::raw, WeightRule::over_selected, WeightRule::over_all}) {
      const Tensor direction = random({c.rows.shape(0)}, 8);
      CHECK(gradient_error({c.rows}, [&](const std::vector<Parameter>& in) {
              return sum(multiply(Contest(score, c.pairs, in[0], c.plan).weights(rule), direction));
            }) < 1e-7);
    }
  }
}

TEST_CASE("competition parts: losses by their coefficients, balance counts first winners and P is tempered") {
  const Case c;
  RouterContext context;
  CompetitionOptions options;
  options.temperature = 0.5;
  LossOptions losses;
  losses.balance_coefficient = 0.25;
  losses.z_coefficient = 0.125;
  const Contest contest(AnswerScore::l2_norm, c.pairs, c.rows, c.plan);
  const Tensor router = softmax(c.pairs.logits);
  const Losses all = contest_losses(options, losses, contest, router, context);
  std::map<std::string, double> value, coefficient;
  for (const Loss& l : all) value[l.name] = l.value.item(), coefficient[l.name] = l.coefficient;
  CHECK(coefficient ==
        std::map<std::string, double>{{"router", 0.01}, {"diversity", 0.005}, {"balance", 0.25}, {"z", 0.125}});

  const auto offset = c.pairs.token_offsets.data<int32_t>(), expert = c.pairs.expert.data<int32_t>();
  std::vector<double> share(static_cast<size_t>(kExperts)), mean(static_cast<size_t>(kExperts));
  double with = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    std::vector<double> row(c.affinity.data<double>().begin() + t * kExperts,
                            c.affinity.data<double>().begin() + (t + 1) * kExperts);
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) row[size_t(expert[i])] = contest.answer.data<double>()[i];
    double sum = 0;
    for (double& a : row) sum += a = std::exp(a / 0.5);
    for (size_t e = 0; e < row.size(); ++e) mean[e] += row[e] / sum / double(kTokens);
    if (offset[t] < offset[t + 1]) ++share[size_t(expert[offset[t]])], ++with;
  }
  double expected = 0;
  for (size_t e = 0; e < share.size(); ++e) expected += double(kExperts) * mean[e] * share[e] / with;
  CHECK(value["balance"] == doctest::Approx(expected).epsilon(1e-12));
  CHECK(gradient_error({c.rows}, [&](const std::vector<Parameter>& in) {
          return contest_losses(options, losses, Contest(AnswerScore::l2_norm, c.pairs, in[0], c.plan), router,
                                context)[2]
              .value;
        }) < 1e-7);

  options.router_coefficient = options.diversity_coefficient = losses.balance_coefficient = losses.z_coefficient = 0;
  CHECK(contest_losses(options, losses, contest, router, context).empty());
  options.normal_balance_coefficient = 0;
  CHECK(policy_losses(options, losses, c.pairs, router, context).empty());
}

TEST_CASE("competition parts: equal answers are uniform, the divergence then 0") {
  Case c;
  fill(c.affinity, 0.7);
  const Selection same{c.pairs.expert, c.pairs.token_offsets};
  const Statistics s = describe_contest({}, c.pairs, softmax(c.pairs.logits), &same);
  CHECK(s.scalars().at("affinity_kl") == doctest::Approx(0));
  CHECK(s.scalars().at("agreement") == 1);
  const Selection none{Tensor({0}, DType::i32), Tensor({kTokens + 1}, DType::i32).zero()};
  CHECK(describe_contest({}, c.pairs, softmax(c.pairs.logits), &none).scalars().at("agreement") == 0);
}

DEVICE_CASE("competition parts: agreement is the share of the pairs that others chose too, 1 of none") {
  Pairs pairs;
  pairs.expert = there(tensor_of<int32_t>({0, 2, 1, 3, -1}));
  pairs.token_offsets = there(tensor_of<int32_t>({0, 2, 3, 4}));
  const Selection others{there(tensor_of<int32_t>({2, 1, 0, 2, 3, 1})), there(tensor_of<int32_t>({0, 2, 4, 6}))};
  const Tensor share({1}, DType::f64, device_of_case());
  run<Agreement>(share.device(), share, pairs, others);
  CHECK(share.item() == 0.5);  // expert 2 of token 0, expert 3 of token 2
  pairs.token_offsets = there(tensor_of<int32_t>({0, 0, 0, 0}));
  run<Agreement>(share.device(), share, pairs, others);
  CHECK(share.item() == 1);
}

DEVICE_CASE("competition parts: divergence from uniform") {
  const Tensor P = there(tensor_of<float>({0.25f, 0.25f, 0.25f, 0.25f, 1, 0, 0, 0, 0.5f, 0, 0.5f, 0}).reshape({3, 4}));
  const Tensor mean({1}, DType::f64, device_of_case());
  run<DivergenceFromUniform>(mean.device(), mean, P);
  CHECK(mean.item() == doctest::Approx((std::log(4.) + std::log(2.)) / 3));
  run<DivergenceFromUniform>(mean.device(), mean, there(Tensor({0, 4}, DType::f32)));
  CHECK(mean.item() == 0);
}

GPU_CASE("competition parts: their figures are the same bits in any order of threads") {
  const RandomPairs one = random_pairs(200, 9, 3), other = random_pairs(200, 9, 4);
  Pairs pairs;
  pairs.expert = there(one.expert);
  pairs.token_offsets = there(one.token_offsets);
  const Selection others{there(other.expert), there(other.token_offsets)};
  const Tensor P = there(converted(softmax(random({200, 9}, 5)), DType::f32));
  std::vector<double> seen[2];
  for (const uint64_t order : {0, 1, 2}) {
    const ThreadOrder changed(order);
    const Tensor share({1}, DType::f64, P.device()), mean({1}, DType::f64, P.device());
    run<Agreement>(share.device(), share, pairs, others);
    run<DivergenceFromUniform>(mean.device(), mean, P);
    seen[0].push_back(share.item());
    seen[1].push_back(mean.item());
  }
  for (const auto& values : seen) CHECK((values[1] == values[0] && values[2] == values[0]));
  CHECK(seen[0][0] > 0);
  CHECK(seen[0][0] < 1);
}
