#pragma once
#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace agon {

/// Which random numbers: a seed and a stream of it. The n-th number of a stream is a function of (seed, stream, n)
/// alone, so every device, rank and thread count draws the same.
struct RandomKey {
  uint64_t seed = 0, stream = 0;

  /// A stream of its own for each combination of small numbers: key.with(layer).with(step) ...
  constexpr RandomKey with(uint64_t n) const { return {seed, mix(stream ^ mix(n + 1))}; }

 private:
  /// splitmix64's finaliser: a bijection whose output bits all depend on all input bits.
  static constexpr uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): four words for block `n` of
/// `key`.
constexpr std::array<uint32_t, 4> philox(RandomKey key, uint64_t n) {
  std::array<uint32_t, 4> c{uint32_t(n), uint32_t(n >> 32), uint32_t(key.stream), uint32_t(key.stream >> 32)};
  uint32_t k0 = uint32_t(key.seed), k1 = uint32_t(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c[0], p1 = uint64_t(0xCD9E8D57u) * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// A draw from [0, 1) with 24 bits, from one word.
constexpr float uniform(uint32_t word) { return float(word >> 8) * 0x1p-24f; }

/// Draws in order from one stream, for code that runs on the host.
class Random {
 public:
  explicit Random(RandomKey key) : key_(key) {}
  uint32_t next();
  double uniform();                ///< [0, 1), 53 bits
  uint64_t below(uint64_t bound);  ///< [0, bound), without bias; bound > 0
  double normal();                 ///< mean 0, variance 1 (Box-Muller)

 private:
  RandomKey key_;
  uint64_t block_ = 0;
  int left_ = 0;
  std::array<uint32_t, 4> words_{};
};

/// Fills with draws of mean 0 and the given standard deviation. Element i is draw number first + i of the key and
/// depends on nothing else, so a rank that holds a part of a tensor draws that part alone.
void fill_normal(const Tensor& t, RandomKey key, double deviation, int64_t first = 0);
/// Fills with draws from [low, high), before rounding to the tensor's dtype; otherwise as fill_normal.
void fill_uniform(const Tensor& t, RandomKey key, double low, double high, int64_t first = 0);

}  // namespace agon
