#include "moe/leaving.h"

#include <doctest/doctest.h>


#include "core/parallel.h"
#include "moe/two_sources.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int32_t kNone = TwoSources::kNone;

struct Filled {
  std::vector<int32_t> rows, pairs, wanted, stay, experts_of_stay, stay_offsets, visits, visit_offsets, homes;
  int64_t beyond = 0;
};

/// With every rank's part of what leaves beginning at a multiple of the bounds.
Filled fill(const RandomPairs& chosen, int64_t experts, int ranks, int own, ExchangeBounds bounds) {
  Leaving leaving(chosen.expert.data<const int32_t>(), chosen.token_offsets.data<const int32_t>(), experts, ranks, own);
  const auto N = size_t(chosen.expert.size()), T = size_t(chosen.token_offsets.size()) - 1;
  Filled f;
  std::vector<int32_t> first_row, first_pair;
  for (int r = 0; r < ranks; ++r) {
    first_row.push_back(int32_t(r * bounds.rows));
    first_pair.push_back(int32_t(r * bounds.pairs));
  }
  f.rows.resize(size_t(ranks * bounds.rows), kNone);
  f.pairs.resize(size_t(ranks * bounds.pairs), kNone);
  f.wanted.resize(f.pairs.size(), kNone);
  f.stay.resize(own < 0 ? 0 : size_t(leaving.pairs(own)));
  f.experts_of_stay.resize(f.stay.size());
  f.stay_offsets.resize(T + 1);
  f.visits.resize(N);
  f.visit_offsets.resize(T + 1);
  f.homes.resize(N);
  f.beyond = leaving.fill({f.rows, f.pairs, f.wanted, f.stay, f.experts_of_stay, f.stay_offsets, f.visits,
                           f.visit_offsets, f.homes, first_row, first_pair, bounds});
  return f;
}

}  // namespace

TEST_CASE("leaving: rows and pairs of each rank are counted, over several blocks of tokens") {
  const RandomPairs chosen = random_pairs(1300, 6, 3);
  const auto expert = chosen.expert.data<const int32_t>(), offset = chosen.token_offsets.data<const int32_t>();
  const Leaving leaving(expert, offset, 6, 3, 1);
  CHECK(leaving.tokens() == 1300);
  for (int r = 0; r < 3; ++r) {
    int64_t rows = 0, pairs = 0;
    for (size_t t = 0; t < 1300; ++t) {
      bool any = false;
      for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i)
        if (expert[i] / 2 == r) any = true, ++pairs;
      rows += any;
    }
    CHECK(leaving.rows(r) == rows);
    CHECK(leaving.pairs(r) == pairs);
    CHECK(rows > 0);
  }
}

TEST_CASE("leaving: a small case, written out") {
  // Tokens with experts {3, 0, 1}, none, {2, 5}, {4}: ranks of two experts each, of which the second is the own.
  const RandomPairs chosen{tensor_of<int32_t>({3, 0, 1, 2, 5, 4}), tensor_of<int32_t>({0, 3, 3, 5, 6})};
  const Filled f = fill(chosen, 6, 3, 1, {2, 3});
  const std::vector<int32_t> rows{0, kNone, kNone, kNone, 2, 3}, pairs{1, 2, kNone, kNone, kNone, kNone, 4, 5, kNone},
      wanted{~0, 1, kNone, kNone, kNone, kNone, ~1, ~0, kNone}, stay{~0, ~3}, experts_of_stay{1, 0},
      stay_offsets{0, 1, 1, 2, 2}, visits{0, ~0, ~2, 4, 5, 0}, visit_offsets{0, 2, 2, 4, 5}, homes{~0, 0, 1, ~1, 6, 7};
  CHECK(f.rows == rows);
  CHECK(f.pairs == pairs);
  CHECK(f.wanted == wanted);
  CHECK(f.stay == stay);
  CHECK(f.experts_of_stay == experts_of_stay);
  CHECK(f.stay_offsets == stay_offsets);
  CHECK(std::equal(f.visits.begin(), f.visits.end() - 1, visits.begin()));
  CHECK(f.visit_offsets == visit_offsets);
  CHECK(f.homes == homes);
  CHECK(f.beyond == 0);
}

TEST_CASE("leaving: beyond the bounds the last tokens' rows go, each with all its pairs, at any number of threads") {
  const RandomPairs chosen = random_pairs(1300, 6, 3);
  const auto expert = chosen.expert.data<const int32_t>(), offset = chosen.token_offsets.data<const int32_t>();
  for (const ExchangeBounds bounds : {ExchangeBounds{300, 5000}, {5000, 400}, {0, 10}, {10, 1}}) {
    CAPTURE(bounds.rows);
    const Filled f = fill(chosen, 6, 3, 1, bounds);
    int64_t beyond = 0;
    for (const int32_t r : {0, 2}) {
      int64_t rows = 0, pairs = 0;
      bool full = false;
      for (size_t t = 0; t < 1300; ++t) {
        std::vector<size_t> mine;
        for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i)
          if (expert[i] / 2 == r) mine.push_back(i);
        if (mine.empty()) continue;
        full = full || rows == bounds.rows || pairs + int64_t(mine.size()) > bounds.pairs;
        const bool fits = !full;
        for (size_t n = 0; n < mine.size(); ++n) {
          const int32_t slot = f.homes[mine[n]];
          REQUIRE(slot == (fits ? r * int32_t(bounds.pairs) + int32_t(pairs) + int32_t(n) : kNone));
          if (fits) REQUIRE(f.pairs[size_t(slot)] == int32_t(mine[n]));
        }
        if (fits) REQUIRE(f.rows[size_t(r * bounds.rows + rows)] == int32_t(t));
        if (!fits) beyond += int64_t(mine.size());
        rows += fits;
        pairs += fits ? int64_t(mine.size()) : 0;
      }
      for (int64_t s = rows; s < bounds.rows; ++s) REQUIRE(f.rows[size_t(r * bounds.rows + s)] == kNone);
      for (int64_t s = pairs; s < bounds.pairs; ++s) REQUIRE(f.wanted[size_t(r * bounds.pairs + s)] == kNone);
    }
    CHECK(f.beyond == beyond);
    CHECK(beyond > 0);
    const int before = threads();
    for (const int n : {1, 3}) {
      set_threads(n);
      const Filled again = fill(chosen, 6, 3, 1, bounds);
      CHECK(again.homes == f.homes);
      CHECK(again.wanted == f.wanted);
    }
    set_threads(before);
  }
}
