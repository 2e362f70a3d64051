#include "autograd/recompute.h"

#include <doctest/doctest.h>

#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// y = x², elementwise, counting how often it runs.
Tensor square(const Tensor& x, int* runs = nullptr) {
  if (runs) ++*runs;
  const Tensor y(x.shape(), x.dtype());
  for (size_t i = 0; i < y.data<double>().size(); ++i) y.data<double>()[i] = x.data<double>()[i] * x.data<double>()[i];
  return record("square", {&x}, y, [x](Gradients& g, const Tensor& dy) {
    const Tensor dx(x.shape(), x.dtype());
    for (size_t i = 0; i < dx.data<double>().size(); ++i)
      dx.data<double>()[i] = 2 * x.data<double>()[i] * dy.data<double>()[i];
    g.add(x, dx);
  });
}

Parameter parameter(Shape shape, uint64_t seed) {
  Parameter p(shape, Precision::f64());
  copy(p.value, random(shape, seed));
  return p;
}

}  // namespace

TEST_CASE("recompute: once without a tape, twice with one, inside another recompute once more") {
  Parameter x = parameter({3}, 1);
  Parameter* all[] = {&x};
  int runs = 0;
  const auto f = [&](std::span<const Tensor> in) { return square(in[0], &runs); };
  recompute(f, {x.value});
  CHECK(runs == 1);
  CHECK(gradient_error(all, [&] { return probe(recompute(f, {x.value}), 3); }) < 1e-8);
  runs = 0;
  {
    Tape tape(all);
    tape.backward(probe(recompute(f, {x.value}), 3));
  }
  CHECK(runs == 2);
  runs = 0;
  {
    Tape tape(all);
    tape.backward(
        probe(recompute([&](std::span<const Tensor> in) { return square(recompute(f, {in[0]})); }, {x.value}), 3));
  }
  CHECK(runs == 3);
}

TEST_CASE("recompute: holds its inputs and its result, not what lies between") {
  Parameter x = parameter({1024}, 1);
  Parameter* all[] = {&x};
  const auto deep = [](std::span<const Tensor> in) {
    Tensor h = in[0];
    for (int i = 0; i < 8; ++i) h = square(h);
    return h;
  };
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Tape tape(all);
    const Tensor h = square(x), y = recompute(deep, {h});
    CHECK(arena.live() == 2 * 8192);
    tape.backward(probe(y, 2));
  }
  CHECK(arena.live() == 0);
}

TEST_CASE("recompute: after an exception the tape records again") {
  Parameter x = parameter({3}, 1);
  Parameter* all[] = {&x};
  Tape tape(all);
  CHECK_THROWS_AS(recompute([](std::span<const Tensor>) -> Tensor { throw Error("no"); }, {x.value}), Error);
  CHECK(recording({&x.value}));
  CHECK_THROWS_AS(recompute([](std::span<const Tensor> in) { return in[0]; }, {x.value}), Error);
}
