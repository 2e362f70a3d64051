#include "ops/cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "ops/linear.h"
#include "ops/reference.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

const std::vector<int32_t> kTargets = {3, -1, 0, 12, 7, -1, 12};

Tensor wide(const Tensor& t) { return converted(t, DType::f64); }

}  // namespace

TEST_CASE("cross_entropy: loss, losses of tokens and gradient against the reference") {
  struct Case {
    DType dtype;
    double tolerance;
  };
  const Tensor target = tensor_of(kTargets);
  for (const auto [dtype, tolerance] : {Case{DType::f64, 1e-13}, {DType::f32, 1e-5}, {DType::bf16, 1e-2}}) {
    CAPTURE(dtype);
    const Tensor logits = random({7, 13}, 1, 8, dtype);
    const auto expected = reference::cross_entropy(wide(logits), target, 5);
    Tape tape({});
    tape.watch(logits);
    const CrossEntropy result = cross_entropy(logits, target, 5);
    CHECK(result.loss.dtype() == accumulator_dtype(dtype));
    CHECK(result.loss.item() == doctest::Approx(expected.loss).epsilon(1e-5));
    CHECK(relative_error(result.per_token, expected.per_token) < 1e-5);
    tape.backward(result.loss);
    CHECK(relative_error(tape.gradient(logits), expected.dlogits) < tolerance);
  }
}

TEST_CASE("cross_entropy: gradients agree with differences, also of a loss that is weighted afterwards") {
  const Tensor target = tensor_of(kTargets);
  CHECK(gradient_error({random({7, 13}, 1)}, [&](auto& in) { return probe(cross_entropy(in[0], target, 5).loss, 2); }) <
        1e-8);
}

TEST_CASE("cross_entropy: logits nobody else holds become their gradient, others stay as they are") {
  const Tensor x = random({7, 4}, 1), target = tensor_of(kTargets);
  Parameter w({13, 4}, Precision::f64());
  copy(w.value, random({13, 4}, 2));
  Parameter* all[] = {&w};
  std::vector<double> kept_gradient;  // outlives the arena below
  for (const bool keep : {true, false}) {
    w.has_grad = false;
    Tape tape(all);
    Tensor logits = linear(x, w), copy_of_logits = clone(logits);
    const Tensor held = keep ? logits : Tensor();
    Arena measure;
    const Arena::Scope scope(measure);
    const CrossEntropy result = cross_entropy(std::move(logits), target, 5);
    CHECK((measure.live() > 2 * kAlignment) == keep);
    if (keep) CHECK(identical(held, copy_of_logits));
    tape.backward(result.loss);
    const auto gradient = w.grad.data<double>();
    if (keep)
      kept_gradient.assign(gradient.begin(), gradient.end());
    else
      CHECK(std::ranges::equal(kept_gradient, gradient));
  }
}

TEST_CASE("cross_entropy: large logits stay finite, NaN shows in the loss, no rows cost nothing") {
  Tensor logits({1, 3}, DType::f32);
  logits.data<float>()[0] = 1e4f;
  logits.data<float>()[1] = -1e4f;
  logits.data<float>()[2] = 1e4f;
  CHECK(cross_entropy(logits, tensor_of<int32_t>({0}), 1).loss.item() == doctest::Approx(std::log(2.0)));
  CHECK(cross_entropy(logits, tensor_of<int32_t>({1}), 1).loss.item() == doctest::Approx(2e4 + std::log(2.0)));
  logits.data<float>()[1] = std::nanf("");
  CHECK(std::isnan(cross_entropy(logits, tensor_of<int32_t>({0}), 1).loss.item()));
  CHECK(cross_entropy(Tensor({0, 3}, DType::f32), Tensor({0}, DType::i32), 1).loss.item() == 0);
}

TEST_CASE("cross_entropy: a target outside the vocabulary is the user's mistake, named by position") {
  CHECK_THROWS_WITH_AS(cross_entropy(random({2, 3}, 1), tensor_of<int32_t>({0, 3}), 1),
                       doctest::Contains("the target at position 1 is 3, expected an id below the vocabulary's 3"),
                       UserError);
}
