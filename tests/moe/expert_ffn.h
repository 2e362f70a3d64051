#pragma once
#include "moe/expert_ffn.h"
#include "tests/moe/support.h"

// What the tests of expert_ffn share.
namespace agon::testing {

/// Outputs and gradients of ⟨direction, f(x, weight)⟩.
struct Result {
  Tensor y;
  std::vector<Tensor> gradients;  // x, weight, parameters of the experts
};

template <class F>
Result differentiate(ExpertGroup& experts, Parameter& x, Parameter& weight, F&& f) {
  std::vector<Parameter*> all{&x, &weight};
  for (Parameter* p : parameters(experts)) all.push_back(p);
  for (Parameter* p : all) p->has_grad = false;
  Tape tape(all);
  Result result{f(x, weight), {}};
  tape.backward(probe(result.y, 17));
  for (Parameter* p : all) result.gradients.push_back(clone(p->grad));
  return result;
}

inline Parameter parameter(const Tensor& values, Precision precision, Device device = {}) {
  Parameter p(values.shape(), precision, device);
  copy(p.master, values);
  p.refresh();
  return p;
}

}  // namespace agon::testing
