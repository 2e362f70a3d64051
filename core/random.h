#pragma once
#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace agon {

/// Which random numbers: a seed and a stream of it. The n-th number of a stream is a function of (seed, stream, n)
/// alone, so every device, rank and thread count draws the same.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t stream = 0;

  /// A stream of its own for each combination of small numbers: key.with(layer).with(step) ...
  RandomKey with(uint64_t n) const;
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): four words for block `n` of
/// `key`.
std::array<uint32_t, 4> philox(RandomKey key, uint64_t n);

/// A draw from [0, 1) with 24 bits, from one word.
inline float uniform(uint32_t word) { return float(word >> 8) * 0x1p-24f; }

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
