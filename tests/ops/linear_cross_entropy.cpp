#include "ops/linear_cross_entropy.h"

#include "ops/cross_entropy.h"
#include "ops/linear.h"
#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

Tensor wide(const Tensor& t) { return converted(on_host(t), DType::f64); }

/// Targets spread over the vocabulary, every fifth not counted.
Tensor targets(int64_t tokens, int64_t classes) {
  Tensor t({tokens}, DType::i32);
  for (int64_t i = 0; i < tokens; ++i) t.data<int32_t>()[i] = i % 5 == 4 ? -1 : int32_t(i * 7919 % classes);
  return t;
}

struct Result {
  Tensor loss, per_token, dx, dw;
};

Result differentiate(const Tensor& x, Parameter& w, const Tensor& target, double denominator) {
  w.has_grad = false;
  Parameter* all[] = {&w};
  Tape tape(all);
  tape.watch(x);
  const CrossEntropy result = linear_cross_entropy(x, w, target, denominator);
  tape.backward(result.loss);
  return {result.loss, result.per_token, tape.gradient(x), clone(w.grad)};
}

Parameter weight(int64_t classes, int64_t width, Precision precision) {
  Parameter w({classes, width}, precision, device_of_case());
  copy(w.value, there(random({classes, width}, 2, 1, precision.compute)));
  return w;
}

/// What the reference says of x and w, f64.
Result expected_result(const Tensor& x, const Tensor& w, const Tensor& target, double denominator) {
  const auto loss = reference::cross_entropy(reference::linear(x, w), target, denominator);
  const auto gradients = reference::linear_backward(loss.dlogits, x, w);
  return {tensor_of<double>({loss.loss}), loss.per_token, gradients.dx, gradients.dw};
}

}  // namespace

TEST_CASE("linear_cross_entropy: gradients agree with differences, also of a loss that is weighted afterwards") {
  const Tensor target = targets(6, 9);
  CHECK(gradient_error({random({6, 5}, 1), random({9, 5}, 2)},
                       [&](auto& in) { return probe(linear_cross_entropy(in[0], in[1], target, 4).loss, 3); }) < 1e-8);
}

DEVICE_CASE("linear_cross_entropy: against the reference, one chunk and several, one block of rows and several") {
  const bool gpu = device_of_case().kind == Device::cuda;
  struct Case {
    int64_t tokens, classes;
  };
  struct Format {
    Precision precision;
    double tolerance;
  };
  for (const auto [tokens, classes] : {Case{1, 1}, {7, 40}, {300, 50}, {11, 9001}})
    for (const auto [precision, tolerance] :
         {Format{Precision::f64(), 1e-12}, {Precision::fp32(), 1e-5}, {Precision::bf16(), 1e-2}}) {
      if (gpu && precision.compute == DType::f64) continue;
      CAPTURE(tokens);
      CAPTURE(classes);
      CAPTURE(precision.compute);
      const Tensor x = random({tokens, 8}, 1, 1, precision.compute), target = targets(tokens, classes);
      Parameter w = weight(classes, 8, precision);
      const Result got = differentiate(there(x), w, there(target), 3);
      const Result expected = expected_result(wide(x), wide(w.value), target, 3);
      CHECK(relative_error(got.loss, expected.loss) < 1e-5);
      CHECK(relative_error(got.per_token, expected.per_token) < 1e-5);
      CHECK(relative_error(got.dx, expected.dx) < tolerance);
      // A GPU multiplies the logits' gradient as bf16.
      CHECK(relative_error(got.dw, expected.dw) < (gpu ? tolerance : 1e-5));
    }
}

DEVICE_CASE("linear_cross_entropy: blocks and chunks of any size give the reference's numbers, twice the same bits") {
  const int64_t tokens = 37, classes = 100, width = 24;
  const Tensor target = targets(tokens, classes);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const LinearCrossEntropyForward::Block block :
         {LinearCrossEntropyForward::Block{1000, 1000}, {16, 1000}, {1000, 41}, {10, 33}}) {
      CAPTURE(dtype);
      CAPTURE(block.classes);
      const Tensor x = random({tokens, width}, 1, 1, dtype), w = random({classes, width}, 2, 1, dtype);
      const auto once = [&] {
        const Device device = device_of_case();
        Result r{Tensor({1}, DType::f32, device), Tensor({tokens}, DType::f32, device),
                 Tensor(x.shape(), dtype, device), Tensor(w.shape(), DType::f32, device)};
        run<LinearCrossEntropyForward>(device, CrossEntropy{r.loss, r.per_token}, r.dx, r.dw, there(x), there(w),
                                       there(target), 3.0, block);
        return r;
      };
      const Result got = once(), expected = expected_result(wide(x), wide(w), target, 3);
      const double tolerance = dtype == DType::bf16 ? 1e-2 : 1e-5;
      CHECK(relative_error(got.per_token, expected.per_token) < 1e-5);
      CHECK(relative_error(got.dx, expected.dx) < tolerance);
      CHECK(relative_error(got.dw, expected.dw) < tolerance);
      const ThreadOrder changed(2);
      const Result again = once();
      CHECK(identical(again.per_token, got.per_token));
      CHECK(identical(again.dx, got.dx));
      CHECK(identical(again.dw, got.dw));
    }
}

GPU_CASE("linear_cross_entropy: nothing crosses between host and GPU, a weighted loss scales both gradients") {
  const Tensor x = there(random({7, 8}, 1, 1, DType::f32)), target = there(targets(7, 40));
  Parameter w = weight(40, 8, Precision::fp32());
  const Result plain = differentiate(x, w, target, 3);
  w.has_grad = false;
  Parameter* all[] = {&w};
  const Tensor weight_of_loss = there(tensor_of<float>({2.5f}));
  Crossings before{}, after{};
  Tensor dx;
  {
    Tape tape(all);
    tape.watch(x);
    before = crossings();
    const Tensor loss = linear_cross_entropy(x, w, target, 3).loss;
    const Tensor weighted = record(
        "weighted", {&loss}, loss.detach(),
        [loss = loss.without_data(), weight_of_loss](Gradients& g, const Tensor&) { g.add(loss, weight_of_loss); });
    tape.backward(weighted);
    after = crossings();
    dx = tape.gradient(x);
  }
  CHECK(after.to_device == before.to_device);
  CHECK(after.to_host == before.to_host);
  CHECK(dot(dx, dx) == doctest::Approx(2.5 * 2.5 * dot(plain.dx, plain.dx)).epsilon(1e-5));
  CHECK(dot(w.grad, w.grad) == doctest::Approx(2.5 * 2.5 * dot(plain.dw, plain.dw)).epsilon(1e-5));
}

GPU_CASE("linear_cross_entropy: a target outside the vocabulary makes the loss NaN") {
  const Tensor x = there(random({3, 4}, 1, 1, DType::f32)), w = there(random({5, 4}, 2, 1, DType::f32));
  CHECK(std::isnan(linear_cross_entropy(x, w, there(tensor_of<int32_t>({0, 1, 5})), 1).loss.item()));
  CHECK(!std::isnan(linear_cross_entropy(x, w, there(tensor_of<int32_t>({0, 1, 4})), 1).loss.item()));
}

TEST_CASE("linear_cross_entropy: a token's bits depend on neither the other tokens nor the threads nor on recording") {
  const int64_t tokens = 290, classes = 9000;
  const Tensor x = random({tokens, 8}, 1, 1, DType::f32), target = targets(tokens, classes);
  Parameter w = weight(classes, 8, Precision::fp32());
  set_threads(1);
  const Result one = differentiate(x, w, target, 3);
  for (int n : {2, 3}) {
    set_threads(n);
    const Result got = differentiate(x, w, target, 3);
    CHECK(identical(got.loss, one.loss));
    CHECK(identical(got.dx, one.dx));
    CHECK(identical(got.dw, one.dw));
  }
  set_threads(0);
  CHECK(identical(linear_cross_entropy(x, w, target, 3).per_token, one.per_token));
  Tensor last({1, 8}, DType::f32), last_target({1}, DType::i32);
  std::copy_n(x.data<float>().begin() + 288 * 8, 8, last.data<float>().begin());
  last_target.data<int32_t>()[0] = target.data<int32_t>()[288];
  const Result alone = differentiate(last, w, last_target, 3);
  CHECK(alone.per_token.data<float>()[0] == one.per_token.data<float>()[288]);
  CHECK(std::memcmp(alone.dx.address(), &one.dx.data<float>()[288 * 8], 8 * sizeof(float)) == 0);
}

TEST_CASE("linear_cross_entropy: logits are never there all at once, without a tape there is no gradient either") {
  const Tensor x = random({2000, 4}, 1, 1, DType::f32), w = random({5000, 4}, 2, 1, DType::f32),
               target = targets(2000, 5000);
  Arena arena;
  {
    const Arena::Scope scope(arena);
    linear_cross_entropy(x, w, target, 1);
  }
  CHECK(arena.peak() < 9 * 1024 * 1024);
  CHECK(arena.live() == 0);
}

TEST_CASE("linear_cross_entropy: only what is wanted is computed, no tokens give zero gradients") {
  const Tensor target = targets(4, 6);
  Parameter w = weight(6, 5, Precision::f64()), x({4, 5}, Precision::f64());
  copy(x.value, random({4, 5}, 1));
  const Result both = differentiate(x, w, target, 3);
  Parameter* only_x[] = {&x};
  Tape tape(only_x);
  tape.backward(linear_cross_entropy(x, w.value.detach(), target, 3).loss);
  CHECK(identical(x.grad, both.dx));
  fill(w.grad, 4);
  const Result none = differentiate(Tensor({0, 5}, DType::f64), w, Tensor({0}, DType::i32), 1);
  CHECK(none.loss.item() == 0);
  CHECK(dot(none.dw, none.dw) == 0);
}

DEVICE_CASE("linear_cross_entropy: no tokens give zero gradients in f32") {
  Parameter w = weight(6, 5, Precision::fp32());
  fill(w.grad, 4);
  const Device device = device_of_case();
  const Result none = differentiate(Tensor({0, 5}, DType::f32, device), w, Tensor({0}, DType::i32, device), 1);
  CHECK(none.loss.item() == 0);
  CHECK(dot(none.dw, none.dw) == 0);
}

TEST_CASE("linear_cross_entropy: NaN shows in the loss, a target outside the vocabulary is the user's mistake") {
  const Tensor x = random({3, 4}, 1), w = random({5, 4}, 2);
  CHECK_THROWS_WITH_AS(linear_cross_entropy(x, w, tensor_of<int32_t>({0, 1, 5}), 1),
                       doctest::Contains("the target at position 2 is 5, expected an id below the vocabulary's 5"),
                       UserError);
  x.data<double>()[5] = std::nan("");
  CHECK(std::isnan(linear_cross_entropy(x, w, tensor_of<int32_t>({0, 1, 2}), 1).loss.item()));
}
