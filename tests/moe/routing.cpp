#include "moe/routing.h"

#include <doctest/doctest.h>

#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("plan: every pair in use sits in exactly one row, rows ascend by expert, tokens in order within an expert") {
  for (const auto& [tokens, experts, spare] :
       {std::tuple{1, 1, 0}, {7, 3, 0}, {64, 8, 5}, {33, 5, 40}, {0, 4, 3}, {1500, 20, 7}}) {
    CAPTURE(tokens);
    const RandomPairs pairs = random_pairs(tokens, experts, 11 + tokens, spare);
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, experts);
    const auto token_of_pair = plan.token_of_pair.data<const int32_t>(),
               pair_of_row = plan.pair_of_row.data<const int32_t>();
    const auto row_of_pair = plan.row_of_pair.data<const int32_t>(), offset = plan.offsets.data<const int32_t>();
    const auto expert = pairs.expert.data<const int32_t>(), token_offset = pairs.token_offsets.data<const int32_t>();
    const int32_t used = token_offset.back();

    CHECK(offset[0] == 0);
    CHECK(offset.back() == used);
    CHECK(std::ranges::is_sorted(offset));
    for (int32_t n = 0; n < used; ++n) {
      const int32_t i = pair_of_row[n];
      REQUIRE(i >= 0);
      CHECK(row_of_pair[i] == n);
      CHECK(offset[expert[i]] <= n);
      CHECK(n < offset[expert[i] + 1]);
      if (n > offset[expert[i]]) CHECK(pair_of_row[n - 1] < i);
    }
    for (int t = 0; t < tokens; ++t)
      for (int32_t i = token_offset[t]; i < token_offset[t + 1]; ++i) CHECK(token_of_pair[i] == t);
    for (size_t i = size_t(used); i < expert.size(); ++i) {
      CHECK(token_of_pair[i] == -1);
      CHECK(pair_of_row[i] == -1);
      CHECK(row_of_pair[i] == -1);
    }
  }
}

TEST_CASE("plan: an expert out of range and offsets that do not ascend are errors") {
  const Tensor expert = tensor_of<int32_t>({0, 2, 1});
  CHECK_NOTHROW(make_plan(expert, tensor_of<int32_t>({0, 1, 3}), 3));
  CHECK_THROWS_WITH_AS(make_plan(expert, tensor_of<int32_t>({0, 1, 3}), 2),
                       doctest::Contains("names expert 2, there are 2"), Error);
  CHECK_NOTHROW(make_plan(expert, tensor_of<int32_t>({0, 1, 1}), 2));  // the last two entries are only room
  CHECK_THROWS_AS(make_plan(expert, tensor_of<int32_t>({0, 2, 1}), 3), Error);
  CHECK_THROWS_AS(make_plan(expert, tensor_of<int32_t>({0, 2, 4}), 3), Error);
  CHECK_THROWS_AS(make_plan(tensor_of<int32_t>({-1}), tensor_of<int32_t>({0, 1}), 3), Error);
}

GPU_CASE("plan: the bits of the CPU's, whatever order threads run in, and nothing is read back") {
  // Among them: one of each, no tokens, a bound far above what is in use, more than one block of pairs, a full last
  // one.
  for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0},
                                               {1, 1, 5},
                                               {0, 4, 3},
                                               {0, 4, 0},
                                               {7, 3, 0},
                                               {33, 5, 4000},
                                               {700, 6, 0},
                                               {512, 2, 1},
                                               {300, 40, 17}}) {
    CAPTURE(tokens);
    CAPTURE(spare);
    const RandomPairs pairs = random_pairs(tokens, experts, 11 + tokens, spare);
    const Plan expected = make_plan(pairs.expert, pairs.token_offsets, experts);
    const Tensor expert = there(pairs.expert), token_offsets = there(pairs.token_offsets);
    for (const uint64_t order : {0, 1, 2}) {
      const ThreadOrder changed(order);
      const Crossings before = crossings();
      const Plan plan = make_plan(expert, token_offsets, experts);
      CHECK(crossings().to_host == before.to_host);
      CHECK(crossings().to_device == before.to_device);
      CHECK(identical(plan.token_of_pair, expected.token_of_pair));
      CHECK(identical(plan.pair_of_row, expected.pair_of_row));
      CHECK(identical(plan.row_of_pair, expected.row_of_pair));
      CHECK(identical(plan.offsets, expected.offsets));
    }
  }
}

GPU_CASE("plan: blocks of pairs that are full to the last, and all pairs one expert's") {
  for (const int64_t n : {1023, 1024, 1025, 3072}) {
    std::vector<int32_t> one(static_cast<size_t>(n), 2), offsets;
    for (int32_t t = 0; t <= n; ++t) offsets.push_back(t);
    const Plan expected = make_plan(tensor_of(one), tensor_of(offsets), 3),
               plan = make_plan(there(tensor_of(one)), there(tensor_of(offsets)), 3);
    CHECK(identical(plan.pair_of_row, expected.pair_of_row));
    CHECK(identical(plan.offsets, expected.offsets));
  }
}
