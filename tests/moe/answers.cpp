#include "moe/answers.h"

#include <doctest/doctest.h>

#include <cmath>

#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("answers: the formulas") {
  const int64_t N = 5, D = 7;
  const Tensor rows = random({N, D}, 3, 4);
  for (size_t kind = 0; kind < answer_score_names().size(); ++kind) {
    const AnswerScore score = answer_score_named(answer_score_names()[kind]);
    const Tensor a = answer_scores(rows, score);
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t d = 0; d < D; ++d) {
        const double o = rows.data<double>()[n * D + d];
        sum += kind == 0   ? std::log1p(std::exp(o))
               : kind == 1 ? o * o
               : kind == 2 ? o / (1 + std::exp(-o))
                           : std::max(o, 0.0);
      }
      CHECK(a.data<double>()[n] == doctest::Approx(kind == 1 ? std::sqrt(sum) : sum / double(D)).epsilon(1e-13));
    }
  }
  CHECK_THROWS_AS(answer_score_named("loud"), Error);
}

TEST_CASE("answers: gradients agree with finite differences, large answers do not overflow, zero ones have no slope") {
  const Tensor direction = random({6}, 9);
  for (const std::string& name : answer_score_names()) {
    CAPTURE(name);
    const AnswerScore score = answer_score_named(name);
    CHECK(gradient_error({random({6, 5}, 4)}, [&](const std::vector<Parameter>& in) {
            return sum(multiply(answer_scores(in[0], score), direction));
          }) < 1e-7);
    Tensor large({2, 3}, DType::f32);
    fill(large, 500);
    large.data<float>()[0] = -500;
    const Tensor of_large = answer_scores(large, score);
    for (float v : of_large.data<float>()) CHECK(std::isfinite(v));
    Parameter zero({1, 4}, Precision::f64());
    Parameter* const all[] = {&zero};
    Tape tape(all);
    tape.backward(sum(answer_scores(zero, score)));
    for (double v : zero.grad.data<double>()) CHECK(std::isfinite(v));
  }
  Tensor bad({1, 2}, DType::f32);
  fill(bad, std::nan(""));
  for (const std::string& name : answer_score_names())
    CHECK(std::isnan(answer_scores(bad, answer_score_named(name)).data<float>()[0]));
}

GPU_CASE("answers: as on the CPU, forward and backward, large answers, zero ones and NaN too") {
  for (const std::string& name : answer_score_names()) {
    CAPTURE(name);
    const AnswerScore score = answer_score_named(name);
    for (const Shape shape : {Shape{1, 1}, Shape{0, 4}, Shape{9, 33}, Shape{20, 64}})
      op_case(against_cpu({random(shape, 4)}, [&](const auto& in) { return answer_scores(in[0], score); }));
    Tensor rows({4, 40}, DType::f32);
    fill(rows, 0);
    for (size_t d = 0; d < 40; ++d) {
      rows.data<float>()[d] = d % 2 ? 500 : -500;
      rows.data<float>()[80 + d] = d == 39 ? std::nanf("") : 1;
    }
    Tape tape({});
    const Tensor x = there(rows);
    tape.watch(x);
    const Tensor a = answer_scores(x, score);
    tape.backward(probe(a, 1));
    const Tensor found = on_host(a), dx = on_host(tape.gradient(x));
    CHECK(relative_error(slice(found, 0, 2), slice(answer_scores(rows, score), 0, 2)) < 1e-6);
    CHECK(std::isnan(found.data<float>()[2]));
    for (size_t d = 0; d < 80; ++d) CHECK(std::isfinite(dx.data<float>()[d]));
  }
}
