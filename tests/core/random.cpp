#include "core/random.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/copy.h"
#include "core/parallel.h"
#include "tests/support/gradient.h"

using namespace agon;
using agon::testing::identical;

namespace {
using Words = std::array<uint32_t, 4>;
constexpr RandomKey kKey{.seed = 1234, .stream = 5};
}  // namespace

TEST_CASE("random: philox4x32-10 gives the answers published with Random123") {  // its kat_vectors
  CHECK(philox({0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0ull, ~0ull}, ~0ull) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({.seed = 0x299f31d0a4093822, .stream = 0x0370734413198a2e}, 0x85a308d3243f6a88) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: a stream gives the words of its blocks in order") {
  Random r(kKey);
  for (uint64_t block = 0; block < 3; ++block)
    for (uint32_t word : philox(kKey, block)) CHECK(r.next() == word);
}

TEST_CASE("random: keys of different small numbers are different streams, whatever the order") {
  std::set<uint64_t> streams;
  for (uint64_t a = 0; a < 40; ++a) {
    CHECK(streams.insert(RandomKey{7}.with(a).stream).second);
    for (uint64_t b = 0; b < 40; ++b) CHECK(streams.insert(RandomKey{7}.with(a).with(b).stream).second);
  }
  CHECK(RandomKey{7}.with(1).seed == 7);
}

TEST_CASE("random: draws lie where they should and have the moments they should") {
  Random r(kKey);
  const int n = 20000;
  double mean = 0, square = 0, normal_mean = 0, normal_square = 0, normal_fourth = 0, word_mean = 0;
  for (int i = 0; i < n; ++i) {
    const double u = r.uniform(), z = r.normal();
    const float w = uniform(r.next());
    REQUIRE((u >= 0 && u < 1 && w >= 0 && w < 1 && std::isfinite(z)));
    mean += u / n;
    square += u * u / n;
    word_mean += w / n;
    normal_mean += z / n;
    normal_square += z * z / n;
    normal_fourth += z * z * z * z / n;
  }
  CHECK(std::abs(mean - 0.5) < 0.01);  // five standard errors each
  CHECK(std::abs(square - 1 / 3.) < 0.011);
  CHECK(std::abs(word_mean - 0.5) < 0.011);
  CHECK(std::abs(normal_mean) < 0.036);
  CHECK(std::abs(normal_square - 1) < 0.05);
  CHECK(std::abs(normal_fourth - 3) < 0.35);
  CHECK(uniform(~0u) < 1);
}

TEST_CASE("random: below is uniform, for bounds small and huge") {
  Random r(kKey);
  std::vector<int> seen(6, 0);
  for (int i = 0; i < 60000; ++i) ++seen[size_t(r.below(6))];
  double chi = 0;
  for (int n : seen) chi += (n - 10000.) * (n - 10000.) / 10000;
  CHECK(chi < 25);  // 5 degrees of freedom: p < 0.0002 beyond
  // With 3/4 of 2^64 a plain remainder would give the lowest third half of all draws.
  const uint64_t bound = 3ull << 62;
  int low = 0;
  for (int i = 0; i < 9000; ++i) {
    const uint64_t x = r.below(bound);
    REQUIRE(x < bound);
    low += x < bound / 3;
  }
  CHECK(std::abs(low - 3000) < 225);
  for (int i = 0; i < 10; ++i) CHECK(r.below(1) == 0);
  CHECK_THROWS_AS(r.below(0), Error);
}

TEST_CASE("random: an element of a filled tensor depends on key and number alone") {
  const int64_t n = 20'001;
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const Tensor whole({n}, dtype), normal({n}, dtype);
    fill_uniform(whole, kKey, -2, 3);
    fill_normal(normal, kKey, 0.5);
    for (int64_t first : {0, 1, 6, 8191, 20'000}) {
      const Tensor part({n - first}, dtype), normal_part({n - first}, dtype);
      fill_uniform(part, kKey, -2, 3, first);
      fill_normal(normal_part, kKey, 0.5, first);
      const size_t skipped = size_t(first * size_of(dtype));
      CHECK(std::memcmp(part.address(), static_cast<const char*>(whole.address()) + skipped, size_t(part.bytes())) ==
            0);
      CHECK(std::memcmp(normal_part.address(), static_cast<const char*>(normal.address()) + skipped,
                        size_t(part.bytes())) == 0);
    }
    set_threads(3);
    const Tensor again({n}, dtype);
    fill_normal(again, kKey, 0.5);
    set_threads(0);
    CHECK(identical(again, normal));
  }
  CHECK_THROWS_AS(fill_normal(Tensor({1}, DType::f32), kKey, 1, -1), Error);
}

TEST_CASE("random: fills have the range and the deviation asked for") {
  const Tensor t({10000}, DType::f64);
  fill_uniform(t, kKey, -2, 3);
  double mean = 0;
  for (double x : t.data<double>()) {
    REQUIRE((x >= -2 && x < 3));
    mean += x / 10000;
  }
  CHECK(std::abs(mean - 0.5) < 0.075);
  fill_normal(t, kKey, 0.02);
  double square = 0, neighbours = 0;
  for (size_t i = 0; i < 10000; ++i) {
    square += t.data<double>()[i] * t.data<double>()[i] / 10000;
    if (i) neighbours += t.data<double>()[i] * t.data<double>()[i - 1] / 10000;
  }
  CHECK(std::abs(square / 0.0004 - 1) < 0.075);
  CHECK(std::abs(neighbours / 0.0004) < 0.05);  // the two of a pair are independent
}
