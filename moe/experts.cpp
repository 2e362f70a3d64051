#include "moe/experts.h"

#include "ops/activation.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/swiglu.h"

namespace agon {

namespace {

Parameter matrix(Shape shape, Precision precision, double deviation, Group group) {
  Parameter p(shape, precision);
  p.init = Init::normal;
  p.deviation = deviation;
  p.decays = true;
  p.group = group;
  return p;
}

Parameter zeros(Shape shape, Precision precision, Group group) {
  Parameter p(shape, precision);
  p.group = group;
  return p;
}

}  // namespace

Activation activation_named(const std::string& name) {
  if (name == "swiglu") return Activation::swiglu;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  throw UserError(text("no activation is called \"", name, "\"; known are swiglu, gelu, relu"));
}

Tensor activate(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::swiglu:
      return swiglu(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::relu:
      return relu(x);
  }
  throw Error("an activation that does not exist");
}

ExpertGroup::ExpertGroup(int64_t experts, int64_t width, int64_t hidden, Activation a, bool bias, Precision precision,
                         double deviation, double down_deviation)
    : activation(a),
      up(matrix({experts, width_before(a, hidden), width}, precision, deviation, Group::expert)),
      down(matrix({experts, width, hidden}, precision, down_deviation, Group::expert)) {
  if (!bias) return;
  up_bias = zeros({experts, width_before(a, hidden)}, precision, Group::expert);
  down_bias = zeros({experts, width}, precision, Group::expert);
}

Tensor ExpertGroup::operator()(const Tensor& rows, const Tensor& offsets) const {
  const Tensor hidden = activate(activation, grouped_linear(rows, up, offsets, up_bias));
  return grouped_linear(hidden, down, offsets, down_bias);
}

FeedForward::FeedForward(int64_t width, int64_t hidden, Activation a, bool bias, Precision precision, double deviation,
                         double down_deviation)
    : activation(a),
      up(matrix({width_before(a, hidden), width}, precision, deviation, Group::shared)),
      down(matrix({width, hidden}, precision, down_deviation, Group::shared)) {
  if (!bias) return;
  up_bias = zeros({width_before(a, hidden)}, precision, Group::shared);
  down_bias = zeros({width}, precision, Group::shared);
}

Tensor FeedForward::operator()(const Tensor& x) const {
  return linear(activate(activation, linear(x, up, up_bias)), down, down_bias);
}

}  // namespace agon
