#include "apps/histogram.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"
#include "core/random.h"

using namespace agon;

TEST_CASE("histogram: bins ascend with the scores and are narrow") {
  double before = -std::numeric_limits<double>::infinity();
  int32_t last = -1;
  for (const float v : {-1e30f, -2.0f, -1.0f, -1e-20f, 0.0f, 1e-30f, 1e-6f, 0.25f, 0.2502f, 1.0f, 3.5f, 1e30f}) {
    CAPTURE(v);
    const int32_t bin = ScoreHistogram::bin_of(v);
    CHECK(bin > last);
    const double low = ScoreHistogram::low(bin), high = ScoreHistogram::low(bin + 1);
    CHECK(low > before);
    CHECK(low <= double(v));
    CHECK(double(v) < high);
    CHECK(high - low <= std::max(std::abs(double(v)) * std::ldexp(1.0, -11), 1e-37));
    last = bin, before = low;
  }
  CHECK(ScoreHistogram::bin_of(std::numeric_limits<float>::infinity()) < ScoreHistogram::kBins);
  CHECK(std::isfinite(ScoreHistogram::low(ScoreHistogram::bin_of(std::numeric_limits<float>::infinity()))));
}

TEST_CASE("histogram: the value that so many scores reach is that of the sorted scores, to a bin") {
  ScoreHistogram h;
  std::vector<float> all;
  Random random({7, 0});
  for (int i = 0; i < 20000; ++i) {
    all.push_back(float(std::exp(-9 * random.uniform())));
    h.add(all.back());
  }
  std::ranges::sort(all, std::greater<>());
  CHECK(h.total() == 20000);
  CHECK(std::ranges::is_sorted(h.bins()));
  CHECK(h.bins().size() == h.counts().size());
  CHECK(h.bins().size() < 20000);
  for (const int n : {1, 2, 10, 500, 9999, 19999}) {
    CAPTURE(n);
    CHECK(h.reached_by(n) == doctest::Approx(all[size_t(n) - 1]).epsilon(std::ldexp(1.0, -11)));
  }
  const auto reach = [&](double v) { return std::ranges::count_if(all, [&](float s) { return double(s) >= v; }); };
  CHECK(reach(h.reached_by(20000)) == 20000);
  CHECK(reach(h.reached_by(1e9)) == 20000);
  CHECK(reach(h.reached_by(0)) == 0);
}

TEST_CASE("histogram: within a bin the threshold moves evenly") {
  const int32_t bin = ScoreHistogram::bin_of(1.0f);
  const ScoreHistogram h({bin - 5, bin, bin + 7}, {4, 8, 2});
  const double low = ScoreHistogram::low(bin), high = ScoreHistogram::low(bin + 1);
  CHECK(h.reached_by(2 + 8) == doctest::Approx(low).epsilon(1e-12));
  CHECK(h.reached_by(2 + 2) == doctest::Approx(high - 0.25 * (high - low)).epsilon(1e-12));
  CHECK(h.reached_by(2.5) == doctest::Approx(high - 0.0625 * (high - low)).epsilon(1e-12));
  CHECK(h.reached_by(2) == ScoreHistogram::low(bin + 7));
}

TEST_CASE("histogram: bins and counts that cannot be are refused") {
  CHECK_THROWS_AS(ScoreHistogram({1, 2}, {1}), UserError);
  CHECK_THROWS_AS(ScoreHistogram({2, 1}, {1, 1}), UserError);
  CHECK_THROWS_AS(ScoreHistogram({-1}, {1}), UserError);
  CHECK_THROWS_AS(ScoreHistogram({ScoreHistogram::kBins}, {1}), UserError);
  CHECK_THROWS_AS(ScoreHistogram({3}, {0}), UserError);
  CHECK_THROWS_AS(ScoreHistogram({3}, {std::numeric_limits<double>::quiet_NaN()}), UserError);
  CHECK_THROWS_AS(ScoreHistogram().reached_by(1), Error);
  CHECK_THROWS_AS(ScoreHistogram().add(std::numeric_limits<float>::quiet_NaN()), Error);
}
