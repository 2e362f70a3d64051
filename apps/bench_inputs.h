#pragma once
#include <algorithm>
#include <deque>
#include <vector>

#include "apps/bench.h"
#include "autograd/tape.h"
#include "core/copy.h"
#include "core/random.h"

// What the cases of `agon bench` are made of.

namespace agon {

/// A layer as it is called in issues and documents.
struct LayerShape {
  const char* name;
  int64_t tokens, width, hidden, experts, k;  // T, D, F, E, k
};
inline constexpr LayerShape kLayerShapes[] = {{"S1", 4096, 256, 512, 8, 2},
                                              {"S2", 2048, 512, 1024, 8, 2},
                                              {"S3", 2048, 768, 3072, 8, 2},
                                              {"S4", 2048, 768, 384, 64, 8},
                                              {"S5", 1024, 1024, 512, 64, 8}};

/// Normal draws on a device; `seed` tells the sets of inputs apart.
inline Tensor drawn(Shape shape, DType dtype, Device device, uint64_t seed, double deviation = 1) {
  Tensor t(shape, dtype, device);
  fill_normal(t, {.seed = seed}, deviation);
  return t;
}

/// A loss whose gradient with respect to y is dy, and which costs nothing.
inline Tensor loss_with(const Tensor& y, const Tensor& dy) {
  Tensor loss({1}, accumulator_dtype(y.dtype()), y.device());
  loss.zero();
  return record("given gradient", {&y}, loss,
                [y = y.without_data(), dy](Gradients& g, const Tensor&) { g.add(y, dy); });
}

/// Group sizes that grow linearly from one to the next, as routing that was learned is uneven: the largest is about
/// twice the mean. [groups + 1] i32.
inline Tensor uneven_offsets(int64_t rows, int64_t groups, Device device) {
  std::vector<int32_t> offsets{0};
  for (int64_t e = 1; e <= groups; ++e)
    offsets.push_back(int32_t(double(rows) * double(e * (e + 1)) / double(groups * (groups + 1))));
  return on_device(tensor_of(offsets), device);
}

inline Tensor even_offsets(int64_t rows, int64_t groups, Device device) {
  std::vector<int32_t> offsets;
  for (int64_t e = 0; e <= groups; ++e) offsets.push_back(int32_t(rows * e / groups));
  return on_device(tensor_of(offsets), device);
}

}  // namespace agon
