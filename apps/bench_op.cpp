#include "apps/bench_op.h"

namespace agon {

OpSet::OpSet(const std::vector<OpInput>& inputs, Device device, uint64_t seed) {
  for (const OpInput& input : inputs) {
    seed = seed * 31 + 7;
    if (!input.weight) {
      values.push_back(drawn(input.shape, input.dtype, device, seed, input.deviation));
      continue;
    }
    Parameter& p = parameters.emplace_back(input.shape, Precision{input.dtype, DType::f32}, device);
    copy(p.master, drawn(input.shape, DType::f32, device, seed, input.deviation));
    p.refresh();
    pointers.push_back(&p);
    values.push_back(p.value);
  }
}

void add_op(BenchCases& cases, const BenchOptions& o, const std::string& name, const std::string& shape, double flops,
            double backward, double out_bytes, const std::vector<OpInput>& inputs, std::function<Op()> make) {
  double in = 0, gradients = 0;
  for (const OpInput& i : inputs) {
    in += bytes_of(i);
    gradients += i.weight ? double(i.shape.size() * 4) : bytes_of(i);
  }
  BenchCase c{.group = "ops", .name = name, .shape = shape, .dtype = inputs[0].dtype, .flops = flops};
  c.bytes = in + out_bytes;
  c.set_bytes = int64_t(in + out_bytes);
  c.prepare = [=](int64_t sets) {
    auto all = std::make_shared<std::deque<OpSet>>();
    for (int64_t i = 0; i < sets; ++i) all->emplace_back(inputs, o.device, uint64_t(i));
    return BenchRun{[=, op = make()](int64_t turn) { op((*all)[size_t(turn) % all->size()].values); }};
  };
  cases.push_back(c);
  c.name += "+backward";
  c.flops = (1 + backward) * flops;
  c.bytes += out_bytes + in + gradients;
  c.prepare = [=](int64_t sets) {
    auto all = std::make_shared<std::deque<OpSet>>();
    const Op op = make();
    for (int64_t i = 0; i < sets; ++i) {
      all->emplace_back(inputs, o.device, uint64_t(i));
      const Tensor y = op(all->back().values);
      all->back().dy = drawn(y.shape(), y.dtype(), o.device, uint64_t(100 + i));
    }
    return BenchRun{[=](int64_t turn) {
      OpSet& set = (*all)[size_t(turn) % all->size()];
      for (Parameter* p : set.pointers) p->has_grad = false;
      Tape tape(set.pointers);
      for (size_t i = 0; i < inputs.size(); ++i)
        if (!inputs[i].weight) tape.watch(set.values[i]);
      tape.backward(loss_with(op(set.values), set.dy));
    }};
  };
  cases.push_back(std::move(c));
}

}  // namespace agon
