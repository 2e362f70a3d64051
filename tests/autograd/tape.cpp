#include "autograd/tape.h"

#include <doctest/doctest.h>

#include "autograd/recompute.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// y = a * x, elementwise by a constant, written out here so that these tests need no op.
Tensor times(const Tensor& x, double a) {
  Tensor y(x.shape(), x.dtype());
  for (size_t i = 0; i < y.data<double>().size(); ++i) y.data<double>()[i] = a * x.data<double>()[i];
  return record("times", {&x}, y, [x, a](Gradients& g, const Tensor& dy) {
    const Tape::Pause pause;
    g.add(x, times(dy, a));
  });
}

/// y = a + b: gives the same dy to both inputs.
Tensor plus(const Tensor& a, const Tensor& b) {
  Tensor y(a.shape(), a.dtype());
  for (size_t i = 0; i < y.data<double>().size(); ++i) y.data<double>()[i] = a.data<double>()[i] + b.data<double>()[i];
  return record("plus", {&a, &b}, y, [a, b](Gradients& g, const Tensor& dy) {
    g.add(a, dy);
    g.add(b, dy);
  });
}

/// y = x², elementwise.
Tensor square(const Tensor& x) {
  Tensor y(x.shape(), x.dtype());
  for (size_t i = 0; i < y.data<double>().size(); ++i) y.data<double>()[i] = x.data<double>()[i] * x.data<double>()[i];
  return record("square", {&x}, y, [x](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype());
    for (size_t i = 0; i < dx.data<double>().size(); ++i) dx.data<double>()[i] = 2 * x.data<double>()[i] * dy.data<double>()[i];
    g.add(x, dx);
  });
}

Parameter parameter(Shape shape, uint64_t seed) {
  Parameter p(shape, Precision::f64());
  copy(p.value, random(shape, seed));
  return p;
}

}  // namespace

TEST_CASE("tape: one dy given to two inputs, a tensor used many times") {
  Parameter x = parameter({4, 3}, 1);
  Parameter* all[] = {&x};
  CHECK(gradient_error(all, [&] {
          const Tensor a = times(x, 2), b = plus(a, x), c = square(b);
          return probe(plus(plus(b, a), plus(c, b)), 3);
        }) < 1e-8);
}

TEST_CASE("tape: gradients of two backward passes add up, an unused parameter gets zero") {
  Parameter x = parameter({3}, 1), unused = parameter({2}, 2);
  Parameter* all[] = {&x, &unused};
  fill(unused.grad, 7);
  const auto once = [&] {
    Tape tape(all);
    tape.backward(probe(square(x), 5));
  };
  once();
  const Tensor first = clone(x.grad);
  CHECK(unused.grad.data<double>()[0] == 0);
  once();
  for (size_t i = 0; i < 3; ++i) CHECK(x.grad.data<double>()[i] == doctest::Approx(2 * first.data<double>()[i]));
  x.has_grad = false;
  once();
  CHECK(identical(x.grad, first));
}

TEST_CASE("tape: ready fires once per parameter, after its last use, in backward order") {
  Parameter early = parameter({2}, 1), late = parameter({2}, 2), unused = parameter({2}, 3);
  Parameter* all[] = {&early, &late, &unused};
  std::vector<Parameter*> order;
  Tape tape(all, [&](Parameter& p) { order.push_back(&p); });
  const Tensor a = square(early), b = plus(a, late);
  tape.backward(probe(plus(square(b), late), 3));
  REQUIRE(order.size() == 3);
  CHECK(order[0] == &late);
  CHECK(order[1] == &early);
  CHECK(order[2] == &unused);
}

TEST_CASE("recompute: same gradients, parameters inside ready only when done, intermediate results not kept") {
  Parameter x = parameter({64}, 1), w = parameter({64}, 2);
  Parameter* all[] = {&x, &w};
  const auto f = [&](std::span<const Tensor> in) { return plus(square(square(plus(in[0], w))), square(in[0])); };
  const auto run = [&](bool again, std::vector<Parameter*>* order, size_t* nodes) {
    x.has_grad = w.has_grad = false;
    Tape tape(all, [&](Parameter& p) { if (order) order->push_back(&p); });
    const Tensor a = square(x);
    const Tensor inputs[] = {a};
    const Tensor y = again ? recompute(f, {a}) : f(inputs);
    const Tensor loss = probe(plus(y, w), 9);
    if (nodes) *nodes = tape.size();
    tape.backward(loss);
    return std::pair(clone(x.grad), clone(w.grad));
  };
  size_t nodes = 0;
  std::vector<Parameter*> order;
  const auto plain = run(false, nullptr, nullptr), twice = run(true, &order, &nodes);
  CHECK(identical(plain.first, twice.first));
  CHECK(identical(plain.second, twice.second));
  CHECK(nodes == 4);  // square, recompute, plus, probe
  REQUIRE(order.size() == 2);
  CHECK(order[0] == &w);
}

TEST_CASE("tape: pause records nothing, a watched tensor keeps its gradient") {
  Parameter x = parameter({3}, 1);
  Parameter* all[] = {&x};
  Tape tape(all);
  {
    const Tape::Pause pause;
    square(x);
    CHECK(!recording({&x.value}));
  }
  CHECK(tape.size() == 0);
  CHECK(recording({&x.value}));
  const Tensor a = square(x);
  tape.watch(a);
  tape.backward(probe(times(a, 3), 4));
  const Tensor direction = random({3}, 4);
  for (size_t i = 0; i < 3; ++i) CHECK(tape.gradient(a).data<double>()[i] == doctest::Approx(3 * direction.data<double>()[i]));
}

TEST_CASE("tape: backward frees what it saved as it goes") {
  Parameter x = parameter({1024}, 1);
  Parameter* all[] = {&x};
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Tape tape(all);
    Tensor h = x;
    for (int i = 0; i < 8; ++i) h = square(h);
    tape.backward(probe(h, 2));
  }
  CHECK(arena.live() == 0);
  CHECK(arena.peak() < 8192 * 14);
}
