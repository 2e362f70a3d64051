#pragma once
#include <numeric>

#include "apps/model.h"
#include "core/copy.h"
#include "core/random.h"

namespace agon::testing {

/// `batch` sequences of `length` random ids.
inline Sequences tiny_sequences(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed = 5) {
  Random random({seed, 0});
  std::vector<int32_t> token, position, offsets{0};
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < length; ++i) {
      token.push_back(int32_t(random.below(uint64_t(vocabulary))));
      position.push_back(int32_t(i));
    }
    offsets.push_back(int32_t(token.size()));
  }
  return {tensor_of(token), tensor_of(position), tensor_of(offsets), 0};
}

/// The value of the parameter at a path.
inline Tensor parameter(LanguageModel& model, const std::string& path) {
  Tensor found;
  each_parameter(model, [&](const std::string& name, Parameter& p) {
    if (name == path) found = p.value;
  });
  check(found, "no parameter ", path);
  return found;
}

inline Tensor fill_like(const Tensor& t, double value) {
  Tensor y(t.shape(), t.dtype());
  fill(y, value);
  return y;
}

}  // namespace agon::testing
