#pragma once
#include "ops/elementwise.h"
#include "ops/normed.h"
#include "tests/ops/support.h"

namespace agon::testing {

/// An op that gives a sum and its norm, as a function of {x, residual, gain, bias or nothing}.
using AddAndNorm = std::function<Normed(const std::vector<Tensor>&)>;

/// Both outputs, and the gradients of all inputs where both are used.
inline std::vector<Tensor> outputs_and_gradients(const AddAndNorm& op, const std::vector<Tensor>& inputs) {
  Tape tape({});
  for (const Tensor& x : inputs) tape.watch(x);
  const Normed out = op(inputs);
  CHECK(tape.size() == 2);
  std::vector<Tensor> result{out.sum, out.y};
  tape.backward(add(probe(out.sum, 5), probe(out.y, 6)));
  for (const Tensor& x : inputs) result.push_back(tape.gradient(x));
  return result;
}

inline void check_identical(const std::vector<Tensor>& found, const std::vector<Tensor>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    REQUIRE(found[i]);
    CHECK(identical(found[i], expected[i]));
  }
}

/// `fused` against `separate` bit for bit, in every dtype of the device, with any number of threads and in any order of
/// them. `gains` of the last inputs may stay f32 beside bf16.
inline void same_bits_case(const AddAndNorm& fused, const AddAndNorm& separate, const std::vector<Tensor>& wide,
                           int gains) {
  CAPTURE(wide[0].shape());
  const bool on_gpu = device_of_case().kind == Device::cuda;
  for (const auto& [dtype, kept] :
       {std::pair{DType::f64, 0}, {DType::f32, 0}, {DType::bf16, 0}, {DType::bf16, gains}}) {
    if (on_gpu && dtype == DType::f64) continue;
    CAPTURE(dtype);
    CAPTURE(kept);
    const std::vector<Tensor> inputs = all_there(all_converted(wide, dtype, kept));
    const std::vector<Tensor> expected = outputs_and_gradients(separate, inputs);
    for (const int n : {1, 3}) {
      set_threads(n);
      const ThreadOrder changed(on_gpu ? uint64_t(n) : 0);
      check_identical(outputs_and_gradients(fused, inputs), expected);
    }
    set_threads(0);
  }
}

}  // namespace agon::testing
