#include "apps/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace agon {

namespace {

constexpr int kShift = 12;  // 32 bits of a key less the 20 of a bin
constexpr uint32_t kSign = 0x80000000;

/// Positive floats order as their bits do; negative ones the other way round, below them.
uint32_t key_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score);
  return bits & kSign ? ~bits : bits | kSign;
}

float score_of(uint32_t key) { return std::bit_cast<float>(key & kSign ? key & ~kSign : ~key); }

}  // namespace

ScoreHistogram::ScoreHistogram(std::vector<int32_t> bin, std::vector<double> count)
    : bin_(std::move(bin)), count_(std::move(count)) {
  require(bin_.size() == count_.size(), "found ", bin_.size(), " bins with ", count_.size(), " counts");
  for (size_t i = 0; i < bin_.size(); ++i) {
    require(bin_[i] >= 0 && bin_[i] < kBins && (i == 0 || bin_[i - 1] < bin_[i]), "found the bin ", bin_[i],
            ", expected ascending ones from 0 to ", kBins - 1);
    require(std::isfinite(count_[i]) && count_[i] > 0, "found the count ", count_[i], ", expected one above 0");
  }
}

int32_t ScoreHistogram::bin_of(float score) { return int32_t(key_of(score) >> kShift); }

double ScoreHistogram::low(int32_t bin) {
  constexpr double last = std::numeric_limits<float>::max();
  if (bin >= kBins) return last;
  const float score = score_of(uint32_t(bin) << kShift);
  return std::isnan(score) ? (bin < kBins / 2 ? -last : last) : std::clamp(double(score), -last, last);
}

void ScoreHistogram::add(float score) {
  check(!std::isnan(score), "a score is NaN");
  waiting_.push_back(bin_of(score));
  if (waiting_.size() > std::max<size_t>(1 << 12, bin_.size())) merge();
}

void ScoreHistogram::merge() const {
  if (waiting_.empty()) return;
  std::ranges::sort(waiting_);
  std::vector<int32_t> bin;
  std::vector<double> count;
  const auto put = [&](int32_t b, double n) {
    if (bin.empty() || bin.back() != b) bin.push_back(b), count.push_back(0);
    count.back() += n;
  };
  size_t old = 0;
  for (const int32_t b : waiting_) {
    for (; old < bin_.size() && bin_[old] <= b; ++old) put(bin_[old], count_[old]);
    put(b, 1);
  }
  for (; old < bin_.size(); ++old) put(bin_[old], count_[old]);
  bin_ = std::move(bin);
  count_ = std::move(count);
  waiting_.clear();
}

double ScoreHistogram::total() const {
  merge();
  return std::accumulate(count_.begin(), count_.end(), 0.0);
}

double ScoreHistogram::reached_by(double wanted) const {
  merge();
  check(!bin_.empty(), "a histogram without scores has no threshold");
  double above = 0;
  for (size_t i = bin_.size(); i-- > 0;) {
    if (above + count_[i] >= wanted) {
      const double floor = low(bin_[i]), ceiling = low(bin_[i] + 1);
      return ceiling - std::max(0.0, (wanted - above) / count_[i]) * (ceiling - floor);
    }
    above += count_[i];
  }
  return low(bin_.front());
}

}  // namespace agon
