#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace agon {

/// How many scores fall into each bin: the floats that share the upper 20 bits of a key which orders them by value, so
/// that a bin of normal numbers is no wider than 2^-11 of its values. Only bins that hold something are kept.
class ScoreHistogram {
 public:
  static constexpr int32_t kBins = 1 << 20;

  ScoreHistogram() = default;
  /// `bin` ascending, each in [0, kBins), and `count` above 0 and finite; UserError where they are not.
  ScoreHistogram(std::vector<int32_t> bin, std::vector<double> count);

  /// No NaN.
  void add(float score);
  std::span<const int32_t> bins() const { return merge(), bin_; }     ///< ascending
  std::span<const double> counts() const { return merge(), count_; }  ///< of each bin
  double total() const;

  /// The value that `wanted` scores reach, interpolated within its bin as if the bin's scores were spread evenly. All
  /// scores reach the value of a `wanted` at or above their number, none that of 0. Throws Error when there are none.
  double reached_by(double wanted) const;

  static int32_t bin_of(float score);
  /// The smallest score of a bin; the scores of bin b lie in [low(b), low(b + 1)). low(kBins) is the last value there
  /// is.
  static double low(int32_t bin);

 private:
  void merge() const;

  // What was added waits until it is worth a pass over the bins.
  mutable std::vector<int32_t> waiting_;
  mutable std::vector<int32_t> bin_;
  mutable std::vector<double> count_;
};

}  // namespace agon
