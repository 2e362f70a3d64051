#include "core/random.h"

#include <cmath>
#include <numbers>

#include "core/copy.h"
#include "core/parallel.h"

namespace agon {

namespace {

/// 53 bits from two words, in [0, 1).
double half_open_uniform(uint32_t high, uint32_t low) { return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53; }

/// 52 bits from two words, in (0, 1): never 0, so its logarithm is finite; never rounded to 1.
double open_uniform(uint32_t high, uint32_t low) {
  return (double((uint64_t(high) << 32 | low) >> 12) + 0.5) * 0x1p-52;
}

/// Two independent standard normals from four words.
std::array<double, 2> normals(const std::array<uint32_t, 4>& w) {
  const double r = std::sqrt(-2 * std::log(open_uniform(w[0], w[1])));
  const double angle = 2 * std::numbers::pi * open_uniform(w[2], w[3]);
  return {r * std::cos(angle), r * std::sin(angle)};
}

/// Sets element i to pair(block)[i' % 2] with i' = first + i and block = i' / 2, on the host; other devices get a copy.
template <class Pair>
void fill_from(const Tensor& t, int64_t first, Pair&& pair) {
  check(first >= 0, "random numbers are counted from 0, got ", first);
  const Tensor host = t.device().kind == Device::cpu ? t : Tensor(t.shape(), t.dtype());
  visit_float(t.dtype(), [&]<class T>() {
    const auto x = host.data<T>();
    parallel_ranges(int64_t(x.size()), 1 << 13, [&](int64_t begin, int64_t end) {
      std::array<double, 2> draws{};
      for (int64_t i = begin; i < end; ++i) {
        const uint64_t n = uint64_t(first + i);
        if (i == begin || n % 2 == 0) draws = pair(n / 2);
        x[size_t(i)] = T(draws[n % 2]);
      }
    });
  });
  if (host.address() != t.address()) copy(t, host);
}

}  // namespace

uint32_t Random::next() {
  if (left_ == 0) {
    words_ = philox(key_, block_++);
    left_ = 4;
  }
  return words_[size_t(4 - left_--)];
}

double Random::uniform() {
  const uint32_t high = next();
  return half_open_uniform(high, next());
}

uint64_t Random::below(uint64_t bound) {
  check(bound > 0, "Random::below needs a positive bound");
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;  // beyond it the first numbers would come up more often
  for (;;) {
    const uint64_t high = next(), x = high << 32 | next();
    if (x < limit) return x % bound;
  }
}

double Random::normal() {
  std::array<uint32_t, 4> w;
  for (uint32_t& x : w) x = next();
  return normals(w)[0];
}

void fill_normal(const Tensor& t, RandomKey key, double deviation, int64_t first) {
  fill_from(t, first, [&](uint64_t block) {
    const auto [a, b] = normals(philox(key, block));
    return std::array{deviation * a, deviation * b};
  });
}

void fill_uniform(const Tensor& t, RandomKey key, double low, double high, int64_t first) {
  fill_from(t, first, [&](uint64_t block) {
    const auto w = philox(key, block);
    return std::array{low + (high - low) * half_open_uniform(w[0], w[1]),
                      low + (high - low) * half_open_uniform(w[2], w[3])};
  });
}

}  // namespace agon
