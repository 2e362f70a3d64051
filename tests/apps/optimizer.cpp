#include "apps/optimizer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/copy.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("learning rate: warm-up, then each schedule from rate to final_rate") {
  OptimizerOptions o;
  o.rate = 1;
  o.final_rate = 0.1;
  o.warm_up = 9;
  CHECK(learning_rate(o, 0, 109) == doctest::Approx(0.1));
  CHECK(learning_rate(o, 8, 109) == doctest::Approx(0.9));
  for (const char* schedule : {"cosine", "linear"}) {
    o.schedule = schedule;
    CHECK(learning_rate(o, 9, 109) == doctest::Approx(1));
    CHECK(learning_rate(o, 59, 109) == doctest::Approx(0.55));
    CHECK(learning_rate(o, 109, 109) == doctest::Approx(0.1));
  }
  o.schedule = "cosine";
  CHECK(learning_rate(o, 34, 109) == doctest::Approx(0.1 + 0.45 * (1 + std::sqrt(0.5))));
  o.schedule = "constant";
  CHECK(learning_rate(o, 108, 109) == 1);
  o.schedule = "wsd";
  o.decay_share = 0.5;
  CHECK(learning_rate(o, 54, 108) == doctest::Approx(1));
  CHECK(learning_rate(o, 81, 108) == doctest::Approx(0.55));
  CHECK(learning_rate(o, 108, 108) == doctest::Approx(0.1));
}

namespace {

struct Fixture {
  Parameter a{{3}, Precision::f64()}, b{{2, 2}, Precision::f64()};
  Fixture() {
    copy(a.master, random({3}, 1));
    copy(b.master, random({2, 2}, 2));
    b.decays = true;
    a.name = "a";
    b.name = "b";
  }
  void gradients(double scale) {
    copy(a.grad, random({3}, 3, scale));
    copy(b.grad, random({2, 2}, 4, scale));
    a.has_grad = b.has_grad = true;
  }
};

}  // namespace

TEST_CASE("optimizer: the first update is AdamW's formula, clipped to the global norm") {
  Fixture f;
  f.gradients(10);
  const Tensor before = clone(f.b.master), g = clone(f.b.grad);
  const double norm = std::sqrt(dot(f.a.grad, f.a.grad) + dot(g, g));
  OptimizerOptions o;
  o.rate = 0.01;
  o.warm_up = 0;
  o.schedule = "constant";
  o.weight_decay = 0.5;
  Optimizer optimizer({&f.a, &f.b}, o);
  const auto outcome = optimizer.update(0, 10);
  CHECK(outcome.rate == 0.01);
  CHECK(std::sqrt(outcome.square_sum.item()) == doctest::Approx(norm));
  for (size_t i = 0; i < 4; ++i) {
    const double clipped = g.data<double>()[i] / norm, w = before.data<double>()[i];
    const double expected = w - 0.01 * (clipped / (std::abs(clipped) + 1e-8) + 0.5 * w);
    CHECK(f.b.master.data<double>()[i] == doctest::Approx(expected).epsilon(1e-12));
  }
  CHECK(!f.b.has_grad);
  CHECK(optimizer.bytes() == 2 * 7 * 8);
}

TEST_CASE("optimizer: a gradient that is not finite changes nothing") {
  Fixture f;
  Optimizer optimizer({&f.a, &f.b}, {});
  f.gradients(1);
  optimizer.update(0, 10);
  f.gradients(1);
  f.b.grad.data<double>()[3] = std::numeric_limits<double>::quiet_NaN();
  const Tensor a = clone(f.a.master), b = clone(f.b.master);
  std::vector<Tensor> moments;
  optimizer.each_moment([&](const Optimizer::Moment& m) { moments.push_back(clone(m.tensor)); });
  CHECK(!std::isfinite(optimizer.update(1, 10).square_sum.item()));
  CHECK(identical(a, f.a.master));
  CHECK(identical(b, f.b.master));
  size_t i = 0;
  optimizer.each_moment([&](const Optimizer::Moment& m) {
    CAPTURE(m.name);
    CHECK(m.first == 0);
    CHECK(m.whole == m.tensor.shape());
    CHECK(identical(m.tensor, moments[i++]));
  });
  CHECK(i == 4);
}
