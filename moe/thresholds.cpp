#include "moe/thresholds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"
#include "moe/cpu/nth_largest.h"
#include "ops/copy_part.h"

namespace agon {

namespace {

/// The scores of all ranks, [T, E].
Tensor gathered(std::span<const Tensor> scores, Communicator& everyone) {
  int64_t tokens = 0;
  for (const Tensor& s : scores) tokens += s.shape(0);
  const Tensor here(scores.front().shape().with(0, tokens), scores.front().dtype(), scores.front().device());
  int64_t at = 0;
  for (const Tensor& s : scores) {
    copy_part(here, at, s, 0, s.size());
    at += s.size();
  }
  return everyone.all_gather(here);
}

}  // namespace

Tensor cut(std::span<const Tensor> scores, double k, bool pooled, Communicator& everyone) {
  check(!scores.empty(), "cut: no scores");
  const Tensor all = gathered(scores, everyone);
  const int64_t T = all.shape(0), E = all.shape(1);
  check(T > 0, "cut: no tokens");
  const Tensor columns = pooled ? all.reshape({T * E, 1}) : all, at({columns.shape(1)}, all.dtype(), all.device());
  const double wanted = pooled ? k * double(T) : k / double(E) * double(T);
  if (wanted >= double(columns.shape(0)))
    fill(at, -std::numeric_limits<double>::infinity());  // all, in other steps too
  else
    run<NthLargest>(all.device(), at, columns, std::max<int64_t>(int64_t(std::floor(wanted)), 1));
  return at;
}

Thresholds::Thresholds(int64_t count, DType dtype, double k, double smoothing)
    : value({count}, dtype), experts_per_token(k), decay(smoothing) {
  fill(value, std::numeric_limits<double>::quiet_NaN());
}

bool Thresholds::known() const {
  const Tensor here = on_host(value);
  return visit_accumulator(here.dtype(), [&]<class T>() {
    return std::ranges::none_of(here.data<const T>(), [](T v) { return std::isnan(v); });
  });
}

void Thresholds::learn(std::span<const Tensor> scores, Communicator& everyone) {
  const Tensor now = cut(scores, experts_per_token, value.size() == 1, everyone);
  run<MovingAverage>(value.device(), value, now, decay);
}

void NthLargest::cpu(const Tensor& at, const Tensor& all, int64_t n) {
  const auto rows = size_t(all.shape(0)), columns = size_t(all.shape(1));
  visit_accumulator(all.dtype(), [&]<class S>() {
    const auto from = all.data<const S>();
    parallel_tasks(int64_t(columns), [&](int64_t c) {
      std::vector<cpu::Key<S>> keys(rows);
      parallel_ranges(int64_t(rows), 4096, [&](int64_t begin, int64_t end) {
        for (auto r = size_t(begin); r < size_t(end); ++r) keys[r] = cpu::key_of(from[r * columns + size_t(c)]);
      });
      at.data<S>()[size_t(c)] = cpu::value_of<S>(cpu::nth_largest(keys, n).key);
    });
  });
}

void MovingAverage::cpu(const Tensor& value, const Tensor& now, double decay) {
  visit_accumulator(value.dtype(), [&]<class T>() {
    for (int64_t i = 0; i < value.size(); ++i) {
      T& v = value.data<T>()[size_t(i)];
      const T next = now.data<const T>()[size_t(i)];
      v = std::isnan(v) ? next : T(decay) * v + T(1 - decay) * next;
    }
  });
}

}  // namespace agon
