#include "apps/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "core/random.h"

using namespace agon;

TEST_CASE("sample: temperature 0 takes the most likely, ties to the lower id") {
  const std::vector<float> logits{0, 2, 1, 2};
  SamplingOptions o;
  o.temperature = 0;
  CHECK(sample(logits, o, 0.99) == 1);
}

TEST_CASE("sample: frequencies follow the softmax, top-k and top-p cut the tail") {
  const std::vector<float> logits{std::log(1.f), std::log(2.f), std::log(4.f), std::log(1.f)};
  SamplingOptions o;
  o.temperature = 1;
  const auto count = [&] {
    std::map<int32_t, int> seen;
    for (int i = 0; i < 8000; ++i) ++seen[sample(logits, o, (i + 0.5) / 8000)];
    return seen;
  };
  CHECK(count() == std::map<int32_t, int>{{0, 1000}, {1, 2000}, {2, 4000}, {3, 1000}});
  o.top_k = 2;
  auto cut = count();
  CHECK(cut.size() == 2);
  CHECK(cut[2] == doctest::Approx(8000 * 4 / 6.).epsilon(0.001));
  o.top_k = 0;
  o.top_p = 0.7;  // 0.5 + 0.25 reach it
  cut = count();
  CHECK(cut.size() == 2);
  CHECK(cut[1] == doctest::Approx(8000 * 2 / 6.).epsilon(0.001));
  o.top_p = 1;
  o.temperature = 0.5;  // squares the odds
  CHECK(count()[2] == doctest::Approx(8000 * 16 / 22.).epsilon(0.001));
}
