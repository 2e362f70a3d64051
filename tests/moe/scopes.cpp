#include "moe/scopes.h"

#include <doctest/doctest.h>

#include "core/random.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

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
  CHECK(list(batch.start) == std::vector<int32_t>{0, 3});
  CHECK(batch.group_tokens == std::vector<int64_t>{3, 7});

  const Scopes sequence = make_scopes(ragged(), 10, 0, "sequence");
  CHECK(list(sequence.offsets) == std::vector<int32_t>{0, 3, 3, 8, 10});
  CHECK(list(sequence.start) == std::vector<int32_t>{0, 0, 0, 0});
  CHECK(sequence.group_tokens == std::vector<int64_t>{10});

  const Scopes steps = make_scopes(ragged(), 10, 2, "time_step");
  CHECK(list(steps.token) == std::vector<int32_t>{0, 1, 2, 3, 8, 4, 9, 5, 6, 7});
  CHECK(list(steps.offsets) == std::vector<int32_t>{0, 1, 2, 3, 5, 7, 8, 9, 10});
  CHECK(list(steps.start) == std::vector<int32_t>{0, 0, 0, 3, 3, 3, 3, 3});
  CHECK(steps.group_tokens == std::vector<int64_t>{3, 7});

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
        const auto budget = list(spread_budget(s, b)), offset = list(s.offsets), start = list(s.start);
        REQUIRE(int64_t(budget.size()) == s.count());
        int64_t spent = 0, total = 0, begin = 0;
        for (int64_t tokens : s.group_tokens) {
          for (size_t i = 0; i < budget.size(); ++i)
            if (start[i] == begin && offset[i + 1] <= begin + tokens) spent += budget[i];
          total += int64_t(b * double(tokens));
          begin += tokens;
          CHECK(spent == total);
        }
        CHECK(total_budget(s, b) == total);
        for (size_t i = 0; i < budget.size(); ++i) {
          const double tokens = offset[i + 1] - offset[i];
          CHECK(budget[i] >= int64_t(b * tokens));
          CHECK(double(budget[i]) < b * tokens + 1);
        }
      }
    }
  }
}

TEST_CASE("scopes: offsets on another device have to be as many") {
  RouterContext context = ragged();
  context.sequence_offsets_there = tensor_of<int32_t>({0, 10});
  CHECK_THROWS_WITH_AS(scope_offsets(context, 10, 0), doctest::Contains("sequence_offsets"), Error);
}

GPU_CASE("scopes: a GPU makes the same, out of offsets that are there, and nothing crosses") {
  Random random({5, 0});
  for (const int64_t count : {0, 1, 2, 7, 40, 600}) {
    std::vector<int32_t> sequence{0};
    for (int64_t b = 0; b < count; ++b)
      sequence.push_back(sequence.back() + int32_t(random.below(3) == 0 ? 0 : random.below(count > 100 ? 4 : 30)));
    RouterContext context;
    context.mode = Mode::eval_noncausal;
    context.sequence_offsets = tensor_of(sequence);
    const int64_t tokens = sequence.back();
    for (const bool is_there : {true, false})
      for (const char* kind : {"batch", "sequence", "time_step"})
        for (const int64_t group : {0, 1, 2, 3}) {
          CAPTURE(count);
          CAPTURE(std::string(kind));
          CAPTURE(group);
          context.sequence_offsets_there = is_there ? there(context.sequence_offsets) : Tensor();
          const Scopes here = make_scopes(context, tokens, group, kind);
          const auto before = crossings();
          const Scopes on_gpu = make_scopes(context, tokens, group, kind, device_of_case());
          const Tensor groups = scope_offsets(context, tokens, group, device_of_case());
          const Tensor budget = spread_budget(on_gpu, 0.37);
          if (is_there) CHECK(crossings().to_device == before.to_device);
          CHECK(crossings().to_host == before.to_host);
          CHECK(identical(on_gpu.token, here.token));
          CHECK(identical(on_gpu.offsets, here.offsets));
          CHECK(identical(on_gpu.start, here.start));
          CHECK(on_gpu.group_tokens == here.group_tokens);
          CHECK(identical(groups, scope_offsets(context, tokens, group)));
          CHECK(identical(budget, spread_budget(here, 0.37)));
        }
  }
  CHECK(identical(scope_offsets({}, 9, 0, device_of_case()), tensor_of<int32_t>({0, 9})));
}
