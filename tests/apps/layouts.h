#pragma once
#include <string>
#include <vector>

#include "apps/checkpoint.h"
#include "core/copy.h"
#include "distributed/communicator.h"
#include "tests/support/gradient.h"

namespace agon::testing {

/// The tensors of a small run, whole.
struct WholeRun {
  std::vector<NamedTensor> model, optimizer;

  explicit WholeRun(uint64_t seed) {
    model = {{"experts.down", random({4, 3, 5}, seed, 1, DType::f32)},
             {"embed", random({7, 5}, seed + 1, 1, DType::f32)},
             {"head", converted(random({5, 7}, seed + 2), DType::bf16)},
             {"router.bias", random({4}, seed + 3)},
             {"scale", random({}, seed + 4, 1, DType::f32)}};
    for (const char* moment : {"first.", "second."})
      for (const NamedTensor& t : model)
        if (t.name != "router.bias")
          optimizer.push_back({moment + t.name, random(t.tensor.shape(), ++seed + 9, 1, DType::f32)});
  }
};

/// Elements first ... first + count of a tensor, as a tensor of one row.
inline Tensor cut(const Tensor& t, int64_t first, int64_t count) {
  Tensor part({count}, t.dtype());
  const auto each = size_of(t.dtype());
  if (count) std::memcpy(part.address(), static_cast<const char*>(t.address()) + first * each, size_t(count * each));
  return part;
}

/// What one rank of a layout of `expert` x `data` ranks holds: of the experts those of its group; of the moments of
/// experts a range of its group's, cut between its replicas, of all others a range cut between all ranks.
struct Holding {
  std::vector<TensorPart> model, optimizer;

  Holding(const WholeRun& whole, int rank, int expert, int data) {
    const int group = rank / data, replica = rank % data;
    for (const NamedTensor& t : whole.model) {
      const Shape shape = t.tensor.shape();
      const int64_t n = shape.size() / expert;
      if (t.name.starts_with("experts"))
        model.push_back(
            {t.name, cut(t.tensor, group * n, n).reshape(shape.with(0, shape[0] / expert)), group * n, shape});
      else
        model.push_back({t.name, t.tensor});
    }
    for (const NamedTensor& t : whole.optimizer) {
      const bool experts = t.name.find("experts") != std::string::npos;
      const int64_t n = t.tensor.size() / (experts ? expert : 1), start = experts ? group * n : 0;
      const int among = experts ? data : expert * data, of = experts ? replica : rank;
      const int64_t first = start + n * of / among, end = start + n * (of + 1) / among;
      optimizer.push_back({t.name, cut(t.tensor, first, end - first), first, t.tensor.shape()});
    }
  }
};

}  // namespace agon::testing
