#include "autograd/module.h"

#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <optional>

#include "core/copy.h"
#include "tests/support/gradient.h"

using namespace agon;
using agon::testing::identical;

namespace {

using Strings = std::vector<std::string>;

Parameter normal(Shape shape, double deviation = 1, Precision precision = Precision::fp32()) {
  Parameter p(shape, precision);
  p.init = Init::normal;
  p.deviation = deviation;
  return p;
}

struct Norm {
  Parameter gain{{4}, Precision::fp32()};
  Parameter bias;  // absent
  void visit(auto&& v) {
    v("gain", gain);
    v("bias", bias);
  }
};

struct Layer {
  virtual ~Layer() = default;
  virtual void visit(const Visitor& v) = 0;
};
struct Gate final : Layer {
  Parameter weight = normal({3, 4});
  Tensor threshold{{3}, DType::f32}, none;
  void visit(const Visitor& v) override {
    v("weight", weight);
    v("threshold", threshold);
    v("none", none);
  }
};

struct Model {
  Parameter embedding = normal({5, 4});
  std::vector<Norm> norms = std::vector<Norm>(2);
  std::deque<std::unique_ptr<Layer>> layers;
  std::unique_ptr<Norm> missing;
  std::optional<Norm> last = Norm{};
  Norm inner;
  Parameter* lent = &embedding;
  Model() {
    layers.push_back(std::make_unique<Gate>());
    layers.push_back(nullptr);
    layers.push_back(std::make_unique<Gate>());
  }
  void visit(auto&& v) {
    v("embedding", embedding);
    v("norms", norms);
    v("layers", layers);
    v("missing", missing);
    v("last", last);
    v("", inner);
  }
};

template <class M>
Strings paths(M& m, const std::string& path = "") {
  Strings found;
  each_part(
      m,
      [&](const std::string& name, auto& part) { found.push_back(name + (sizeof(part) == sizeof(Tensor) ? "!" : "")); },
      path);
  return found;
}

}  // namespace

TEST_CASE("module: parts by path, through containers, pointers and virtual visits, without what is absent") {
  Model m;
  CHECK(paths(m) == Strings{"embedding", "norms.0.gain", "norms.1.gain", "layers.0.weight", "layers.0.threshold!",
                            "layers.2.weight", "layers.2.threshold!", "last.gain", "gain"});
  CHECK(paths(m.norms, "a.b") == Strings{"a.b.0.gain", "a.b.1.gain"});
  CHECK(paths(m.norms) == Strings{"0.gain", "1.gain"});
  CHECK(paths(m.inner, "top") == Strings{"top.gain"});
  CHECK(paths(*m.layers[0], "gate") == Strings{"gate.weight", "gate.threshold!"});
}

TEST_CASE("module: parameters, state and names") {
  Model m;
  const auto all = parameters(m);
  CHECK(all.size() == 7);
  CHECK(all[0] == &m.embedding);
  CHECK(all[3] == &static_cast<Gate&>(*m.layers[0]).weight);
  Strings state;
  each_state(m, [&](const std::string& path, Tensor& t) {
    state.push_back(path);
    t = Tensor({1}, DType::f64);  // the part itself, not a copy
  });
  CHECK(state == Strings{"layers.0.threshold", "layers.2.threshold"});
  CHECK(static_cast<Gate&>(*m.layers[2]).threshold.dtype() == DType::f64);
  name_parameters(m);
  CHECK(all[2]->name == "norms.1.gain");
}

TEST_CASE("module: an initial value depends on seed and path alone") {
  Model a, b;
  b.norms.resize(7);
  b.missing = std::make_unique<Norm>();
  initialise(a, 3);
  initialise(b, 3);
  CHECK(identical(a.embedding.value, b.embedding.value));
  CHECK(identical(static_cast<Gate&>(*a.layers[2]).weight.value, static_cast<Gate&>(*b.layers[2]).weight.value));
  CHECK(!identical(static_cast<Gate&>(*a.layers[0]).weight.value, static_cast<Gate&>(*a.layers[2]).weight.value));
  initialise(b, 4);
  CHECK(!identical(a.embedding.value, b.embedding.value));
  Parameter alone = normal({5, 4});
  initialise(alone, "embedding", 3);
  CHECK(identical(alone.value, a.embedding.value));
}

TEST_CASE("module: kinds of initial values, and their precision") {
  Parameter p = normal({1000}, 0.02, Precision::bf16()), wide = normal({1000}, 0.02, Precision::f64());
  initialise(p, "p", 1);
  initialise(wide, "p", 1);
  double square = 0;
  for (size_t i = 0; i < 1000; ++i) {
    REQUIRE(p.value.data<bf16>()[i].bits == bf16(p.master.data<float>()[i]).bits);
    REQUIRE(p.master.data<float>()[i] == float(wide.value.data<double>()[i]));
    square += wide.value.data<double>()[i] * wide.value.data<double>()[i] / 1000;
  }
  CHECK(std::abs(square / 0.0004 - 1) < 0.25);
  p.init = Init::one;
  initialise(p, "p", 1);
  CHECK(float(p.value.data<bf16>()[999]) == 1);
  p.init = Init::zero;
  initialise(p, "p", 1);
  CHECK((p.master.data<float>()[0] == 0 && float(p.value.data<bf16>()[0]) == 0));
}

TEST_CASE("module: a rank that holds a part of a parameter draws that part") {
  Parameter whole = normal({6, 3}), part = normal({2, 3});
  part.first = 3 * 3;  // its rows 3 and 4
  initialise(whole, "experts.up", 1);
  initialise(part, "experts.up", 1);
  for (size_t i = 0; i < 6; ++i) CHECK(part.value.data<float>()[i] == whole.value.data<float>()[9 + i]);
}
