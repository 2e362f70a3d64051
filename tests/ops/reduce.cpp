#include "ops/reduce.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

Tensor total(const Tensor& x, double factor) {
  Tensor s = reference::zeros({1});
  for (double v : x.data<double>()) s.data<double>()[0] += v * factor;
  return s;
}

Tensor spread(const Tensor& dy, const Tensor& x, double factor) {
  return reference::each([&](double) { return dy.item() * factor; }, x);
}

}  // namespace

DEVICE_CASE("sum and mean: against the obvious loops") {
  for (const Shape& shape :
       {Shape{}, Shape{1}, Shape{5, 3}, Shape{4096}, Shape{4097}, Shape{3, 5, 2001}, Shape{0, 4}}) {
    Tensor x = random(shape, 1);
    for (double& v : x.data<double>()) v += 1;  // no cancellation, so that relative errors mean something
    const double n = double(x.size());
    op_case({{x},
             [](auto& in) { return sum(in[0]); },
             [](auto& in) { return total(in[0], 1); },
             [](const Tensor& dy, auto& in) { return std::vector{spread(dy, in[0], 1)}; }});
    op_case({{x},
             [](auto& in) { return mean(in[0]); },
             [=](auto& in) { return total(in[0], 1 / n); },
             [=](const Tensor& dy, auto& in) { return std::vector{spread(dy, in[0], 1 / n)}; }});
  }
}

DEVICE_CASE("column_mean: against the reference") {
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 3}, Shape{257, 8}, Shape{0, 4}, Shape{1025, 65}}) {
    Tensor x = random(shape, 1);
    for (double& v : x.data<double>()) v += 1;
    op_case({{x},
             [](auto& in) { return column_mean(in[0]); },
             [](auto& in) { return reference::column_mean(in[0]); },
             [](const Tensor& dy, auto& in) { return std::vector{reference::column_mean_backward(dy, in[0])}; }});
  }
}

DEVICE_CASE("reduce: nothing sums to 0") {
  CHECK(sum(there(Tensor({0}, DType::f32))).item() == 0);
  CHECK(mean(there(Tensor({0, 4}, DType::bf16))).item() == 0);
  CHECK(on_host(column_mean(there(Tensor({0, 4}, DType::f32)))).data<float>()[3] == 0);
}

TEST_CASE("reduce: results are f32 for bf16, pieces are summed in order") {
  CHECK(sum(random({3}, 1, 1, DType::bf16)).dtype() == DType::f32);
  CHECK(column_mean(random({3, 2}, 1, 1, DType::bf16)).dtype() == DType::f32);
  Tensor x({4096 * 2 + 5}, DType::f32);
  fill_normal(x, {1, 0}, 1);
  float pieces[3] = {};
  for (size_t i = 0; i < x.data<float>().size(); ++i) pieces[i / 4096] += x.data<float>()[i];
  CHECK(float(sum(x).item()) == pieces[0] + pieces[1] + pieces[2]);
  CHECK_THROWS_WITH_AS(column_mean(random({3}, 1)), doctest::Contains("column_mean: expected [T, E], got [3]"), Error);
}
