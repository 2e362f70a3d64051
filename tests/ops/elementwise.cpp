#include "ops/elementwise.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

const auto minus = [](double a, double b) { return a - b; };
const auto times = [](double a, double b) { return a * b; };
const auto plus = [](double a, double b) { return a + b; };

Tensor negated(const Tensor& x) {
  return reference::each([](double v) { return -v; }, x);
}

}  // namespace

DEVICE_CASE("elementwise: add, subtract, multiply and scale against the obvious loops") {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{5, 3}, Shape{0, 4}, Shape{3, 7, 1001}}) {
    const std::vector<Tensor> two{random(shape, 1), random(shape, 2)};
    op_case({two, [](auto& in) { return add(in[0], in[1]); },
             [](auto& in) { return reference::each(plus, in[0], in[1]); },
             [](const Tensor& dy, auto&) {
               return std::vector{dy, dy};
             }});
    op_case({two, [](auto& in) { return subtract(in[0], in[1]); },
             [](auto& in) { return reference::each(minus, in[0], in[1]); },
             [](const Tensor& dy, auto&) {
               return std::vector{dy, negated(dy)};
             }});
    op_case({two, [](auto& in) { return multiply(in[0], in[1]); },
             [](auto& in) { return reference::each(times, in[0], in[1]); },
             [](const Tensor& dy, auto& in) {
               return std::vector{reference::each(times, dy, in[1]), reference::each(times, dy, in[0])};
             }});
    const auto scaled = [](double v) { return -1.7 * v; };
    op_case({{two[0]},
             [](auto& in) { return scale(in[0], -1.7); },
             [=](auto& in) { return reference::each(scaled, in[0]); },
             [=](const Tensor& dy, auto&) { return std::vector{reference::each(scaled, dy)}; }});
  }
}

TEST_CASE("elementwise: one tensor on both sides") {
  CHECK(gradient_error({random({4, 3}, 1)}, [](auto& in) { return probe(multiply(in[0], in[0]), 2); }) < 1e-8);
  CHECK(gradient_error({random({4, 3}, 1)}, [](auto& in) { return probe(subtract(in[0], scale(in[0], 3)), 2); }) <
        1e-8);
  CHECK(gradient_error({random({4, 3}, 1)}, [](auto& in) { return probe(add(add(in[0], in[0]), in[0]), 2); }) < 1e-8);
}

DEVICE_CASE("scale_rows: against the reference, the gain in the dtype of x or f32") {
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 3}, Shape{2, 3, 40}, Shape{0, 4}, Shape{1030, 33}})
    for (const Shape& gain : {Shape{shape.rows()}, shape.with(-1, 1)})
      op_case({.inputs = {random(shape, 1), random(gain, 2)},
               .op = [](auto& in) { return scale_rows(in[0], in[1]); },
               .reference = [](auto& in) { return reference::scale_rows(in[0], in[1]); },
               .reference_backward = [](const Tensor& dy,
                                        auto& in) { return reference::scale_rows_backward(dy, in[0], in[1]); },
               .gains = 1});
}

DEVICE_CASE("cast: every pair of dtypes, rounding once, the gradient in the dtype of x") {
  const DType dtypes[] = {DType::f32, DType::bf16, DType::f64};
  const std::span<const DType> here(dtypes, device_of_case().kind == Device::cpu ? 3 : 2);  // f64 is the CPU's
  for (const DType from : here)
    for (const DType to : here) {
      const Tensor given = random({5, 7}, 1, 1, from), x = there(given);
      Tape tape({});
      tape.watch(x);
      const Tensor y = cast(x, to);
      CHECK(identical(y, converted(given, to)));
      tape.backward(probe(y, 2));
      CHECK(identical(tape.gradient(x), converted(random({5, 7}, 2, 1, to), from)));
    }
  const Tensor x = there(random({3}, 1, 1, DType::f32));
  CHECK(cast(x, DType::f32).id() == x.id());
}

TEST_CASE("elementwise: what add and scale were given is not kept") {
  Parameter p({1000}, Precision::fp32());
  Parameter* all[] = {&p};
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Tape tape(all);
    Tensor h = scale(p, 2);
    for (int i = 0; i < 10; ++i) h = add(h, scale(h, 0.5));
    CHECK(arena.live() == round_up(4000));
  }
  CHECK(arena.live() == 0);
}

TEST_CASE("elementwise: what does not fit is an error that names the op and the shapes") {
  CHECK_THROWS_WITH_AS(add(random({2, 3}, 1), random({3, 2}, 1)),
                       doctest::Contains("add: expected two tensors of one shape"), Error);
  CHECK_THROWS_WITH_AS(multiply(random({2}, 1), random({2}, 1, 1, DType::f32)), doctest::Contains("multiply: "), Error);
  CHECK_THROWS_WITH_AS(scale_rows(random({2, 3}, 1), random({3}, 1)), doctest::Contains("scale_rows: "), Error);
  CHECK_THROWS_AS(scale_rows(random({2, 3}, 1, 1, DType::f32), random({2}, 1, 1, DType::bf16)), Error);
}
