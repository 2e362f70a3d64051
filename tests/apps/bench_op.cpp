#include "apps/bench_op.h"

#include <doctest/doctest.h>

#include "ops/linear.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("bench op: forward and backward as two cases, with what they cannot avoid") {
  BenchOptions options;
  options.tiny = true;
  BenchCases cases;
  int64_t calls = 0;
  Tensor last;
  add_op(cases, options, "twice", "[2, 3]", 12, 2, 16, {{{2, 3}}, {{2, 3}, true}}, [&] {
    return [&](const std::vector<Tensor>& v) {
      ++calls;
      return last = linear(v[0], v[1]);
    };
  });
  REQUIRE(cases.size() == 2);
  CHECK(cases[0].name == "twice");
  CHECK(cases[0].flops == 12);
  CHECK(cases[0].bytes == 24 + 24 + 16);
  CHECK(cases[1].name == "twice+backward");
  CHECK(cases[1].flops == 36);
  CHECK(cases[1].bytes == 2 * (24 + 24 + 16) + 24 + 24);
  const BenchRun run = cases[0].prepare(2);
  run.once(0);
  const Tensor first = clone(last);
  run.once(1);
  CHECK_FALSE(identical(last, first));  // another set
  run.once(2);
  CHECK(identical(last, first));
  calls = 0;
  cases[1].prepare(3).once(0);
  CHECK(calls == 4);  // once for the shape of each set's dy
}

TEST_CASE("bench op: the given gradient reaches the inputs") {
  const OpSet set({{{3, 4}}, {{5, 4}, true}}, {}, 1);
  const Tensor dy = random({3, 5}, 2, 1, DType::f32);
  Tape tape(set.pointers);
  tape.watch(set.values[0]);
  tape.backward(loss_with(linear(set.values[0], set.values[1]), dy));
  const Tensor dx({3, 4}, DType::f32);
  Linear::Input::cpu(dx, dy, set.values[1]);
  CHECK(identical(tape.gradient(set.values[0]), dx));
}

TEST_CASE("bench op: group sizes, even and uneven, cover all rows") {
  for (const int64_t rows : {0, 5, 1000}) {
    const auto even = even_offsets(rows, 8, {}), uneven = uneven_offsets(rows, 8, {});
    for (const Tensor& t : {even, uneven}) {
      const auto offset = t.data<const int32_t>();
      CHECK(offset.front() == 0);
      CHECK(offset.back() == rows);
      CHECK(std::is_sorted(offset.begin(), offset.end()));
    }
  }
  const Tensor t = uneven_offsets(1000, 8, {});
  const auto offset = t.data<const int32_t>();
  CHECK(offset[8] - offset[7] > 1.7 * 125);
}
