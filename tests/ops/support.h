#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/parallel.h"
#include "tests/support/cuda.h"
#include "tests/support/gradient.h"

namespace agon::testing {

/// A case of an op, written once: f64 inputs, the op, and its naive version from ops/reference.h.
struct OpCase {
  std::vector<Tensor> inputs;  // all differentiable
  std::function<Tensor(const std::vector<Tensor>&)> op;
  std::function<Tensor(const std::vector<Tensor>&)> reference;
  /// Gradients of the inputs from dy and the inputs; one that is missing at the end is not compared.
  std::function<std::vector<Tensor>(const Tensor& dy, const std::vector<Tensor>&)> reference_backward;
  /// How many of the last inputs may stay f32 beside bf16.
  int gains = 0;
  /// Where the op has no derivative near the inputs: gradients are compared with the reference only.
  bool differences = true;
};

/// What an op gives: y and the gradients of its inputs, for dy = random(y.shape(), 4).
struct OpResult {
  Tensor y;
  std::vector<Tensor> gradients;
};

inline OpResult run_op(const OpCase& c, const std::vector<Tensor>& inputs) {
  Tape tape({});
  for (const Tensor& x : inputs) tape.watch(x);
  OpResult result{c.op(inputs), {}};
  tape.backward(probe(result.y, 4));
  for (const Tensor& x : inputs) result.gradients.push_back(tape.gradient(x));
  return result;
}

/// The inputs as parameters: gradients are of the master dtype and written by the op itself, added the second time.
inline std::vector<Tensor> run_with_parameters(const OpCase& c, const std::vector<Tensor>& inputs, int times) {
  std::vector<Parameter> parameters;
  std::vector<Parameter*> pointers;
  std::vector<Tensor> values, gradients;
  for (const Tensor& x : inputs) {
    parameters.emplace_back(x.shape(), Precision{x.dtype(), accumulator_dtype(x.dtype())}, x.device());
    copy(parameters.back().value, x);
    fill(parameters.back().grad, 1e30);  // whatever was there must be overwritten
  }
  for (Parameter& p : parameters) {
    pointers.push_back(&p);
    values.push_back(p.value);
  }
  for (int i = 0; i < times; ++i) {
    Tape tape(pointers);
    tape.backward(probe(c.op(values), 4));
  }
  for (const Parameter& p : parameters) gradients.push_back(p.grad);
  return gradients;
}

inline std::vector<Tensor> all_converted(const std::vector<Tensor>& from, DType dtype, int except_last = 0) {
  std::vector<Tensor> to;
  for (size_t i = 0; i < from.size(); ++i)
    to.push_back(converted(from[i], i + size_t(except_last) < from.size() ? dtype : accumulator_dtype(dtype)));
  return to;
}

inline std::vector<Tensor> all_there(std::vector<Tensor> tensors) {
  for (Tensor& t : tensors) t = there(t);
  return tensors;
}

/// y and gradients in one precision against the reference on the same (rounded) inputs.
inline void compare_with_reference(const OpCase& c, DType dtype, int gains_kept, double tolerance) {
  CAPTURE(dtype);
  CAPTURE(gains_kept);
  const std::vector<Tensor> rounded = all_converted(c.inputs, dtype, gains_kept),
                            wide = all_converted(rounded, DType::f64), inputs = all_there(rounded);
  const OpResult result = run_op(c, inputs);
  CHECK(relative_error(result.y, c.reference(wide)) < tolerance);
  const Tensor dy = converted(random(result.y.shape(), 4, 1, result.y.dtype()), DType::f64);
  const std::vector<Tensor> expected = c.reference_backward(dy, wide);
  const std::vector<Tensor> once = run_with_parameters(c, inputs, 1), twice = run_with_parameters(c, inputs, 2);
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    REQUIRE(result.gradients[i]);
    CHECK(result.gradients[i].dtype() == inputs[i].dtype());
    CHECK(relative_error(result.gradients[i], expected[i]) < tolerance);
    CHECK(relative_error(once[i], expected[i]) < tolerance);
    Tensor doubled = clone(expected[i]);
    for (double& v : doubled.data<double>()) v *= 2;
    CHECK(relative_error(twice[i], doubled) < tolerance);
  }
}

/// f32 and bf16 against the reference, forward and backward; the same bits twice, whatever order threads run in.
inline void op_case_on_gpu(const OpCase& c) {
  compare_with_reference(c, DType::f32, 0, 1e-5);
  compare_with_reference(c, DType::bf16, 0, 1e-2);
  if (c.gains) compare_with_reference(c, DType::bf16, c.gains, 1e-2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::vector<Tensor> inputs = all_there(all_converted(c.inputs, dtype));
    const OpResult once = run_op(c, inputs);
    for (const uint64_t order : {1, 2}) {
      const ThreadOrder changed(order);
      const OpResult again = run_op(c, inputs);
      CHECK(identical(again.y, once.y));
      for (size_t i = 0; i < inputs.size(); ++i)
        if (once.gradients[i]) CHECK(identical(again.gradients[i], once.gradients[i]));
    }
  }
}

/// f64, f32 and bf16 against the reference, forward and backward; gradients against differences; the same bits twice
/// and for every number of threads.
inline void op_case(const OpCase& c) {
  CAPTURE(c.inputs[0].shape());
  if (device_of_case().kind == Device::cuda) return op_case_on_gpu(c);
  compare_with_reference(c, DType::f64, 0, 1e-12);
  compare_with_reference(c, DType::f32, 0, 1e-5);
  compare_with_reference(c, DType::bf16, 0, 1e-2);
  if (c.gains) compare_with_reference(c, DType::bf16, c.gains, 1e-2);
  if (c.differences)
    CHECK(gradient_error(c.inputs, [&](const std::vector<Parameter>& in) {
            std::vector<Tensor> values;
            for (const Parameter& p : in) values.push_back(p.value);
            return probe(c.op(values), 5);
          }) < 1e-6);
  const std::vector<Tensor> inputs = all_converted(c.inputs, DType::f32);
  set_threads(1);
  const OpResult one = run_op(c, inputs);
  for (const int n : {3, 3, 2}) {
    set_threads(n);
    const OpResult other = run_op(c, inputs);
    CHECK(identical(other.y, one.y));
    for (size_t i = 0; i < inputs.size(); ++i) CHECK(identical(other.gradients[i], one.gradients[i]));
  }
  set_threads(0);
}

/// i32 numbers.
inline Tensor integers(const std::vector<int32_t>& values) { return tensor_of(values); }

}  // namespace agon::testing
