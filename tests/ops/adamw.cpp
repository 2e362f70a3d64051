#include "ops/adamw.h"

#include <doctest/doctest.h>

#include "core/parallel.h"
#include "ops/reference.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Parameters with gradients and moments.
struct Model {
  std::vector<Parameter> parameters;
  std::vector<Moments> moments;

  explicit Model(Precision precision) {
    for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{0}, Shape{40000}}) {
      Parameter& p = parameters.emplace_back(shape, precision);
      fill_normal(p.master, {parameters.size(), 0}, 1);
      p.refresh();
      p.name = "p" + std::to_string(parameters.size());
      p.decays = parameters.size() % 2 == 1;
      moments.push_back({Tensor(shape, precision.master).zero(), Tensor(shape, precision.master).zero()});
    }
  }
  std::vector<Parameter*> pointers() {
    std::vector<Parameter*> all;
    for (Parameter& p : parameters) all.push_back(&p);
    return all;
  }
  void draw_gradients(uint64_t seed) {
    for (Parameter& p : parameters) {
      fill_normal(p.grad, {seed++, 1}, 0.1);
      p.has_grad = true;
    }
  }
};

}  // namespace

TEST_CASE("adamw: several steps against the formula, in every precision") {
  for (const auto& [precision, tolerance] :
       {std::pair{Precision::f64(), 1e-13}, {Precision::fp32(), 1e-6}, {Precision::bf16(), 1e-6}}) {
    Model model(precision);
    std::vector<Tensor> w, m, v;
    for (Parameter& p : model.parameters) {
      w.push_back(converted(p.master, DType::f64));
      m.push_back(Tensor(p.master.shape(), DType::f64).zero());
      v.push_back(Tensor(p.master.shape(), DType::f64).zero());
    }
    AdamWOptions options{
        .rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0.1, .gradient_scale = 0.5};
    for (options.step = 1; options.step <= 5; ++options.step) {
      model.draw_gradients(uint64_t(100 * options.step));
      for (size_t i = 0; i < w.size(); ++i) {
        Tensor g = converted(model.parameters[i].grad, DType::f64);
        for (double& x : g.data<double>()) x *= 0.5;
        reference::adamw(w[i], m[i], v[i], g, 0.01, 0.9, 0.95, 1e-8, model.parameters[i].decays ? 0.1 : 0,
                         options.step);
      }
      adamw(model.pointers(), model.moments, options);
    }
    for (size_t i = 0; i < w.size(); ++i) {
      const Parameter& p = model.parameters[i];
      CHECK(relative_error(p.master, w[i]) < tolerance);
      CHECK(relative_error(model.moments[i].first, m[i]) < 10 * tolerance);
      CHECK(relative_error(model.moments[i].second, v[i]) < 10 * tolerance);
      CHECK(identical(p.value, converted(p.master, precision.compute)));
      CHECK(!p.has_grad);
    }
  }
}

TEST_CASE("adamw: the same bits for any number of threads") {
  const auto run_with = [](int n) {
    set_threads(n);
    Model model(Precision::bf16());
    model.draw_gradients(9);
    adamw(model.pointers(), model.moments, {});
    set_threads(0);
    return std::move(model.parameters);
  };
  const auto one = run_with(1), three = run_with(3);
  for (size_t i = 0; i < one.size(); ++i) {
    CHECK(identical(one[i].master, three[i].master));
    CHECK(identical(one[i].value, three[i].value));
  }
}

TEST_CASE("adamw: a gradient nobody wrote, moments that do not match, a step before the first") {
  Model model(Precision::fp32());
  CHECK_THROWS_WITH_AS(adamw(model.pointers(), model.moments, {}),
                       doctest::Contains("adamw: no tape has written the gradient of p1"), Error);
  model.draw_gradients(1);
  CHECK_THROWS_AS(adamw(model.pointers(), model.moments, {.step = 0}), Error);
  model.moments[3].second = Tensor({40000}, DType::f64);
  const Tensor before = clone(model.parameters[0].master);
  CHECK_THROWS_WITH_AS(adamw(model.pointers(), model.moments, {}), doctest::Contains("the moments of p4 do not match"),
                       Error);
  CHECK(identical(model.parameters[0].master, before));
  model.moments.pop_back();
  CHECK_THROWS_AS(adamw(model.pointers(), model.moments, {}), Error);
}
