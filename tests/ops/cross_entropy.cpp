#include "ops/cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/reference.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

const std::vector<int32_t> kTargets = {3, -1, 0, 12, 7, -1, 12};

Tensor wide(const Tensor& t) { return converted(t, DType::f64); }

}  // namespace

DEVICE_CASE("cross_entropy: loss, losses of tokens and gradient against the reference") {
  struct Case {
    DType dtype;
    double tolerance;
  };
  const Tensor target = tensor_of(kTargets), placed = there(target);
  for (const auto [dtype, tolerance] : {Case{DType::f64, 1e-13}, {DType::f32, 1e-5}, {DType::bf16, 1e-2}})
    for (const int64_t classes : {13, 2050}) {
      if (dtype == DType::f64 && placed.device().kind == Device::cuda) continue;
      CAPTURE(dtype);
      const Tensor given = random({7, classes}, 1, 8, dtype), logits = there(given);
      const auto expected = reference::cross_entropy(wide(given), target, 5);
      for (const double weight : {1., -3.}) {
        Tape tape({});
        tape.watch(logits);
        const CrossEntropy result = cross_entropy(logits, placed, 5);
        CHECK(result.loss.dtype() == accumulator_dtype(dtype));
        CHECK(result.loss.item() == doctest::Approx(expected.loss).epsilon(1e-5));
        CHECK(relative_error(result.per_token, expected.per_token) < 1e-5);
        tape.backward(scale(result.loss, weight));
        CHECK(relative_error(tape.gradient(logits), scale(expected.dlogits, weight)) < tolerance);
      }
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

DEVICE_CASE("cross_entropy: the gradient takes the place of logits nobody else holds") {
  const Tensor target = there(tensor_of(kTargets));
  for (const int64_t classes : {13, 2050}) {
    const Tensor x = there(random({7, classes}, 1, 1, DType::f32));
    std::vector<Tensor> gradients;
    for (const bool keep : {true, false}) {
      Tape tape({});
      tape.watch(x);
      Tensor logits = scale(x, 2);
      const Tensor held = keep ? logits : Tensor();
      tape.backward(cross_entropy(std::move(logits), target, 5).loss);
      if (keep) CHECK(identical(held, scale(x, 2)));
      gradients.push_back(tape.gradient(x));
    }
    CHECK(identical(gradients[0], gradients[1]));
  }
}

GPU_CASE("cross_entropy: nothing is read back, forward or backward") {
  const Tensor x = there(random({7, 13}, 1, 1, DType::bf16)), target = there(tensor_of(kTargets));
  const Crossings before = crossings();
  Tape tape({});
  tape.watch(x);
  tape.backward(scale(cross_entropy(x, target, 5).loss, 0.5));
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
}

GPU_CASE("cross_entropy: the same bits in any order of threads, a target outside the vocabulary gives NaN") {
  const Tensor x = there(random({3000, 5}, 1, 1, DType::f32)), target = there(tensor_of(std::vector<int32_t>(3000, 4)));
  const Tensor once = cross_entropy(x, target, 7).loss;
  for (const uint64_t order : {1, 2}) {
    const ThreadOrder changed(order);
    CHECK(identical(cross_entropy(x, target, 7).loss, once));
  }
  const CrossEntropy wrong =
      cross_entropy(there(random({2, 3}, 1, 1, DType::f32)), there(tensor_of<int32_t>({0, 3})), 1);
  CHECK(std::isnan(wrong.loss.item()));
  CHECK(!std::isnan(on_host(wrong.per_token).data<float>()[0]));
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
