#include "ops/adamw.h"

#include <doctest/doctest.h>

#include <limits>

#include "autograd/module.h"
#include "core/parallel.h"
#include "ops/reference.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Parameters with gradients and moments, on the device of the case.
struct Model {
  std::vector<Parameter> parameters;
  std::vector<Moments> moments;
  AdamW::Table table;

  explicit Model(Precision precision) {
    for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{0}, Shape{40000}}) {
      Parameter& p = parameters.emplace_back(shape, precision);
      fill_normal(p.master, {parameters.size(), 0}, 1);
      p.refresh();
      p.name = "p" + std::to_string(parameters.size());
      p.decays = parameters.size() % 2 == 1;
      move_part(p, device_of_case());
      moments.push_back({there(Tensor(shape, precision.master).zero()), there(Tensor(shape, precision.master).zero())});
    }
  }
  std::vector<Parameter*> pointers() {
    std::vector<Parameter*> all;
    for (Parameter& p : parameters) all.push_back(&p);
    return all;
  }
  void draw_gradients(uint64_t seed) {
    for (Parameter& p : parameters) {
      copy(p.grad, random(p.grad.shape(), seed++, 0.1, p.grad.dtype()));
      p.has_grad = true;
    }
  }
  void update(const AdamWOptions& options, double norm = 1, const Tensor& loss = {}) {
    adamw(pointers(), moments, options, {there(tensor_of<double>({norm * norm})), loss}, table);
  }
};

std::vector<std::pair<Precision, double>> precisions() {
  std::vector<std::pair<Precision, double>> all{{Precision::fp32(), 1e-6}, {Precision::bf16(), 1e-6}};
  if (device_of_case().kind == Device::cpu) all.emplace_back(Precision::f64(), 1e-13);
  return all;
}

Tensor wide(const Tensor& t) { return converted(on_host(t), DType::f64); }

}  // namespace

DEVICE_CASE("adamw: several steps against the formula, clipped, in every precision") {
  for (const auto& [precision, tolerance] : precisions()) {
    Model model(precision);
    std::vector<Tensor> w, m, v;
    for (Parameter& p : model.parameters) {
      w.push_back(wide(p.master));
      m.push_back(Tensor(p.master.shape(), DType::f64).zero());
      v.push_back(Tensor(p.master.shape(), DType::f64).zero());
    }
    AdamWOptions options{.rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0.1, .clip = 0.5};
    for (options.step = 1; options.step <= 5; ++options.step) {
      const double scale = options.step == 3 ? 1 : 0.5;
      model.draw_gradients(uint64_t(100 * options.step));
      for (size_t i = 0; i < w.size(); ++i) {
        const Tensor g = wide(model.parameters[i].grad);
        for (double& x : g.data<double>()) x *= scale;
        reference::adamw(w[i], m[i], v[i], g, 0.01, 0.9, 0.95, 1e-8, model.parameters[i].decays ? 0.1 : 0,
                         options.step);
      }
      model.update(options, options.step == 3 ? 0.4 : 1);  // 0.4 is below the clip
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

DEVICE_CASE("adamw: a norm or a loss that is not finite changes nothing") {
  for (const double bad : {double(INFINITY), std::numeric_limits<double>::quiet_NaN()}) {
    Model model(Precision::bf16());
    model.draw_gradients(1);
    model.update({});
    std::vector<Tensor> before;
    for (size_t i = 0; i < model.parameters.size(); ++i)
      for (const Tensor& t :
           {model.parameters[i].master, model.parameters[i].value, model.moments[i].first, model.moments[i].second})
        before.push_back(clone(t));
    const auto unchanged = [&] {
      bool same = true;
      for (size_t i = 0; i < model.parameters.size(); ++i)
        same = same && identical(before[4 * i], model.parameters[i].master) &&
               identical(before[4 * i + 1], model.parameters[i].value) &&
               identical(before[4 * i + 2], model.moments[i].first) &&
               identical(before[4 * i + 3], model.moments[i].second);
      return same;
    };
    model.draw_gradients(2);
    model.update({.step = 2}, bad);
    CHECK(unchanged());
    model.draw_gradients(2);
    model.update({.step = 2}, 1, there(tensor_of<double>({bad})));
    CHECK(unchanged());
    model.draw_gradients(2);
    model.update({.step = 2}, 1, there(tensor_of<double>({3})));
    CHECK(!unchanged());
  }
}

GPU_CASE("adamw: its table is uploaded once, and again when a tensor has moved") {
  Model model(Precision::fp32());
  const Tensor norm = there(tensor_of<double>({1}));
  const auto uploads = [&] {
    model.draw_gradients(1);
    const int64_t before = crossings().to_device;
    adamw(model.pointers(), model.moments, {}, {norm}, model.table);
    return crossings().to_device - before;
  };
  CHECK(uploads() == 1);
  CHECK(uploads() == 0);
  model.moments[3].second = clone(model.moments[3].second);
  CHECK(uploads() == 1);
  CHECK(uploads() == 0);
  CHECK(crossings().to_host >= 0);
}

DEVICE_CASE("adamw: the same bits for any number or order of threads") {
  const auto run_with = [](int n) {
    set_threads(n);
    const ThreadOrder order(uint64_t(n - 1));
    Model model(Precision::bf16());
    model.draw_gradients(9);
    model.update({});
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
  CHECK_THROWS_WITH_AS(model.update({}), doctest::Contains("adamw: no tape has written the gradient of p1"), Error);
  model.draw_gradients(1);
  CHECK_THROWS_AS(model.update({.step = 0}), Error);
  model.moments[3].second = Tensor({40000}, DType::f64);
  const Tensor before = clone(model.parameters[0].master);
  CHECK_THROWS_WITH_AS(model.update({}), doctest::Contains("the moments of p4 do not match"), Error);
  CHECK(identical(model.parameters[0].master, before));
  model.moments.pop_back();
  CHECK_THROWS_AS(model.update({}), Error);
}
