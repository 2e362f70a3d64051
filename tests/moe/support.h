#pragma once
#include <algorithm>
#include <vector>

#include "autograd/module.h"
#include "core/copy.h"
#include "core/random.h"
#include "tests/support/gradient.h"

namespace agon::testing {

struct RandomPairs {
  Tensor expert, token_offsets;
};

/// Tokens with 0 to `experts` different experts each, in random order, and room for `spare` more pairs. When there are
/// at least three of them, the last expert gets no token and the first token no expert.
inline RandomPairs random_pairs(int64_t tokens, int64_t experts, uint64_t seed, int64_t spare = 0) {
  Random random({seed, 1});
  std::vector<int32_t> expert, offsets{0};
  const int64_t chosen = experts >= 3 ? experts - 1 : experts;
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> order(static_cast<size_t>(chosen));
    for (size_t e = 0; e < order.size(); ++e) order[e] = int32_t(e);
    for (size_t e = order.size(); e > 1; --e) std::swap(order[e - 1], order[random.below(e)]);
    const uint64_t n = t == 0 && experts >= 3 ? 0 : random.below(uint64_t(chosen) + 1);
    expert.insert(expert.end(), order.begin(), order.begin() + ptrdiff_t(n));
    offsets.push_back(int32_t(expert.size()));
  }
  expert.resize(expert.size() + size_t(spare), -1);
  return {tensor_of(expert), tensor_of(offsets)};
}

/// Normal draws for every parameter of a module, different for each.
template <class M>
void fill_parameters(M& m, uint64_t seed, double deviation = 0.7) {
  each_parameter(m, [&](const std::string&, Parameter& p) {
    fill_normal(p.master, {seed++, 3}, deviation);
    p.refresh();
  });
}

/// A copy of x[begin:end] along the first extent.
inline Tensor slice(const Tensor& x, int64_t begin, int64_t end) {
  Tensor y(x.shape().with(0, end - begin), x.dtype());
  const int64_t row = x.shape().with(0, 1).size() * size_of(x.dtype());
  std::memcpy(y.address(), static_cast<const char*>(x.address()) + begin * row, size_t((end - begin) * row));
  return y;
}

}  // namespace agon::testing
