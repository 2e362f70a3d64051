#include "moe/thresholds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/copy.h"

namespace agon {

namespace {

/// The scores of all ranks, [T, E].
Tensor gathered(std::span<const Tensor> scores, Communicator& everyone) {
  int64_t tokens = 0;
  for (const Tensor& s : scores) tokens += s.shape(0);
  const Tensor here(scores.front().shape().with(0, tokens), scores.front().dtype());
  visit_accumulator(here.dtype(), [&]<class T>() {
    auto to = here.data<T>().begin();
    for (const Tensor& s : scores) to = std::ranges::copy(s.data<const T>(), to).out;
  });
  return everyone.all_gather(here);
}

template <class T>
T nth_largest(std::vector<T>& values, double wanted) {
  if (wanted >= double(values.size())) return -std::numeric_limits<T>::infinity();  // all, in other steps too
  const auto n = size_t(std::max(std::floor(wanted), 1.0));
  std::nth_element(values.begin(), values.begin() + ptrdiff_t(n - 1), values.end(), std::greater<>());
  return values[n - 1];
}

}  // namespace

Tensor cut(std::span<const Tensor> scores, double k, bool pooled, Communicator& everyone) {
  check(!scores.empty(), "cut: no scores");
  const Tensor all = gathered(scores, everyone);
  const int64_t T = all.shape(0), E = all.shape(1);
  check(T > 0, "cut: no tokens");
  const Tensor at({pooled ? 1 : E}, all.dtype());
  visit_accumulator(all.dtype(), [&]<class S>() {
    const auto from = all.data<const S>();
    std::vector<S> values;
    if (pooled) {
      values.assign(from.begin(), from.end());
      at.data<S>()[0] = nth_largest(values, k * double(T));
      return;
    }
    values.resize(size_t(T));
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t t = 0; t < T; ++t) values[size_t(t)] = from[size_t(t * E + e)];
      at.data<S>()[size_t(e)] = nth_largest(values, k / double(E) * double(T));
    }
  });
  return at;
}

Thresholds::Thresholds(int64_t count, DType dtype, double k, double smoothing)
    : value({count}, dtype), experts_per_token(k), decay(smoothing) {
  fill(value, std::numeric_limits<double>::quiet_NaN());
}

bool Thresholds::known() const {
  return visit_accumulator(value.dtype(), [&]<class T>() {
    return std::ranges::none_of(value.data<const T>(), [](T v) { return std::isnan(v); });
  });
}

void Thresholds::learn(std::span<const Tensor> scores, Communicator& everyone) {
  const Tensor now = cut(scores, experts_per_token, value.size() == 1, everyone);
  visit_accumulator(value.dtype(), [&]<class T>() {
    for (int64_t i = 0; i < value.size(); ++i) {
      T& v = value.data<T>()[size_t(i)];
      const T next = now.data<const T>()[size_t(i)];
      v = std::isnan(v) ? next : T(decay) * v + T(1 - decay) * next;
    }
  });
}

}  // namespace agon
