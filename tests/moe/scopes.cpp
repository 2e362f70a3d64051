#include "moe/scopes.h"

#include <doctest/doctest.h>

#include <numeric>

#include "core/copy.h"

using namespace agon;

namespace {

/// Four sequences of 3, 0, 5 and 2 tokens.
RouterContext ragged(Mode mode = Mode::train) {
  RouterContext c;
  c.mode = mode;
  c.sequence_offsets = tensor_of<int32_t>({0, 3, 3, 8, 10});
  return c;
}

std::vector<int32_t> list(const Tensor& t) {
  const auto v = t.data<const int32_t>();
  return {v.begin(), v.end()};
}

}  // namespace

TEST_CASE("scopes: a batch, a sequence, or a position of its sequences") {
  const Scopes batch = make_scopes(ragged(), 10, 2, "batch");
  CHECK(list(batch.offsets) == std::vector<int32_t>{0, 3, 10});
  CHECK(list(batch.token) == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(batch.groups == std::vector<int64_t>{0, 1, 2});

  const Scopes sequence = make_scopes(ragged(), 10, 0, "sequence");
  CHECK(list(sequence.offsets) == std::vector<int32_t>{0, 3, 3, 8, 10});
  CHECK(sequence.groups == std::vector<int64_t>{0, 4});

  const Scopes steps = make_scopes(ragged(), 10, 2, "time_step");
  CHECK(list(steps.token) == std::vector<int32_t>{0, 1, 2, 3, 8, 4, 9, 5, 6, 7});
  CHECK(list(steps.offsets) == std::vector<int32_t>{0, 1, 2, 3, 5, 7, 8, 9, 10});
  CHECK(steps.groups == std::vector<int64_t>{0, 3, 8});

  const Scopes one = make_scopes({}, 4, 0, "batch");
  CHECK(list(one.offsets) == std::vector<int32_t>{0, 4});
}

TEST_CASE("scopes: groups have to be whole in training, the last may be short in evaluation") {
  CHECK_THROWS_WITH_AS(make_scopes(ragged(), 10, 3, "batch"), doctest::Contains("moe.router.group = 3"), UserError);
  CHECK(list(make_scopes(ragged(Mode::eval_noncausal), 10, 3, "batch").offsets) == std::vector<int32_t>{0, 8, 10});
}

TEST_CASE("scopes: a budget is spread without loss, within every group") {
  for (const char* kind : {"batch", "sequence", "time_step"}) {
    CAPTURE(std::string(kind));
    for (int64_t group : {0, 1, 2, 4}) {
      CAPTURE(group);
      for (double b : {1.0, 0.3, 1.7, 0.01, 2.0}) {
        CAPTURE(b);
        const Scopes s = make_scopes(ragged(), 10, group, kind);
        const auto budget = spread_budget(s, b);
        REQUIRE(int64_t(budget.size()) == s.count());
        const auto offset = list(s.offsets);
        for (size_t g = 0; g + 1 < s.groups.size(); ++g) {
          const auto first = s.groups[g], last = s.groups[g + 1];
          const int64_t spent = std::accumulate(budget.begin() + first, budget.begin() + last, int64_t(0));
          CHECK(spent == int64_t(b * double(offset[size_t(last)] - offset[size_t(first)])));
        }
        for (size_t i = 0; i < budget.size(); ++i) {
          const double tokens = offset[i + 1] - offset[i];
          CHECK(budget[i] >= int64_t(b * tokens));
          CHECK(double(budget[i]) < b * tokens + 1);
        }
      }
    }
  }
}
