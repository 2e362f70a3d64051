#pragma once
#include <deque>

#include "apps/bench_inputs.h"

namespace agon {

struct OpInput {
  Shape shape;
  bool weight = false;  // a parameter: its gradient is of the master dtype
  DType dtype = DType::f32;
  double deviation = 1;
};

/// One set of an op's inputs.
struct OpSet {
  std::vector<Tensor> values;
  std::deque<Parameter> parameters;
  std::vector<Parameter*> pointers;
  Tensor dy;

  OpSet(const std::vector<OpInput>& inputs, Device device, uint64_t seed);
  OpSet(const OpSet&) = delete;
  OpSet& operator=(const OpSet&) = delete;
};

using Op = std::function<Tensor(const std::vector<Tensor>&)>;

/// Adds an op as two cases: forward, and forward with backward. Its output has `out_bytes`; forward takes `flops`,
/// backward `backward` times that. `make` puts on the device what the op needs besides its inputs.
void add_op(BenchCases& cases, const BenchOptions& options, const std::string& name, const std::string& shape,
            double flops, double backward, double out_bytes, const std::vector<OpInput>& inputs,
            std::function<Op()> make);

inline double bytes_of(const OpInput& i) { return double(i.shape.size() * size_of(i.dtype)); }

}  // namespace agon
