#include "ops/attention.h"

#include <array>
#include <cmath>
#include <limits>

#include "ops/reference_attention.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Some rows of a tensor, as one of their own.
Tensor rows(const Tensor& t, int64_t begin, int64_t end) {
  Tensor part(t.shape().with(0, end - begin), t.dtype());
  const int64_t bytes = t.bytes() / t.shape(0);
  std::memcpy(part.address(), static_cast<const char*>(t.address()) + begin * bytes, size_t((end - begin) * bytes));
  return part;
}

void attention_case(int64_t heads, int64_t groups, int64_t width, const std::vector<int32_t>& query_offsets,
                    const std::vector<int32_t>& key_offsets) {
  const Tensor qo = integers(query_offsets), ko = integers(key_offsets);
  const Shape keys{key_offsets.back(), groups, width};
  op_case({{random({query_offsets.back(), heads, width}, 1, 2), random(keys, 2), random(keys, 3)},
           [=](auto& in) { return attention(in[0], in[1], in[2], qo, ko); },
           [=](auto& in) { return reference::attention(in[0], in[1], in[2], qo, ko); },
           [=](const Tensor& dy, auto& in) { return reference::attention_backward(dy, in[0], in[1], in[2], qo, ko); }});
}

}  // namespace

TEST_CASE(
    "attention: against the reference, within a tile, at its edges and beyond, several sequences, grouped queries") {
  attention_case(1, 1, 1, {0, 1}, {0, 1});
  attention_case(2, 2, 3, {0, 5}, {0, 5});
  attention_case(4, 2, 8, {0, 9, 9, 12}, {0, 9, 9, 12});  // one sequence is empty
  attention_case(3, 1, 5, {0, 63, 127, 192}, {0, 63, 127, 192});
  attention_case(2, 1, 16, {0, 150}, {0, 150});
  attention_case(2, 2, 4, {0}, {0});
}

TEST_CASE("attention: fewer queries than keys, the last aligned with the last") {
  attention_case(2, 1, 4, {0, 1}, {0, 7});
  attention_case(2, 1, 4, {0, 3, 4, 4}, {0, 70, 71, 90});
  attention_case(1, 1, 6, {0, 70}, {0, 140});
  attention_case(1, 1, 6, {0, 20}, {0, 134});
}

TEST_CASE("attention: rows of a cache after the last sequence are not read and have gradient 0") {
  Tensor q = random({1, 2, 4}, 1), cache = random({9, 1, 4}, 2), keys = rows(cache, 0, 5);
  for (double& unused : cache.data<double>().subspan(20)) unused = std::nan("");
  const auto run = [&](const Tensor& k) {
    Tape tape({});
    tape.watch(q);
    tape.watch(k);
    const Tensor y = attention(q, k, k, integers({0, 1}), integers({0, 5}));
    tape.backward(testing::probe(y, 3));
    return std::array{y, tape.gradient(q), tape.gradient(k)};
  };
  const auto exact = run(keys), cached = run(cache);
  CHECK(identical(cached[0], exact[0]));
  CHECK(identical(cached[1], exact[1]));
  CHECK(identical(rows(cached[2], 0, 5), exact[2]));
  for (const double gradient : cached[2].data<double>().subspan(20)) CHECK(gradient == 0);
}

TEST_CASE("attention: a query alone against cached keys has the bits it has in its sequence") {
  const int64_t length = 200, heads = 4, groups = 2, width = 24;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    CAPTURE(dtype);
    const Tensor q = random({length, heads, width}, 1, 3, dtype), k = random({length, groups, width}, 2, 1, dtype),
                 v = random({length, groups, width}, 3, 1, dtype);
    const Tensor whole = attention(q, k, v, integers({0, 200}), integers({0, 200}));
    for (int32_t t = 0; t < length; ++t) {
      CAPTURE(t);
      const Tensor offsets = integers({0, t + 1});
      const Tensor keys = rows(k, 0, t + 1), values = rows(v, 0, t + 1);
      REQUIRE(identical(attention(rows(q, t, t + 1), keys, values, integers({0, 1}), offsets), rows(whole, t, t + 1)));
      const int32_t few = std::min(t + 1, 5 + t % 67);
      REQUIRE(identical(attention(rows(q, t + 1 - few, t + 1), keys, values, integers({0, few}), offsets),
                        rows(whole, t + 1 - few, t + 1)));
    }
  }
}

TEST_CASE("attention: a sequence has the same bits in any company") {
  const Tensor q = random({100, 2, 8}, 1, 1, DType::f32), k = random({100, 1, 8}, 2, 1, DType::f32),
               v = random({100, 1, 8}, 3, 1, DType::f32);
  const Tensor both = attention(q, k, v, integers({0, 30, 100}), integers({0, 30, 100}));
  const Tensor second =
      attention(rows(q, 30, 100), rows(k, 30, 100), rows(v, 30, 100), integers({0, 70}), integers({0, 70}));
  CHECK(identical(rows(both, 30, 100), second));
}

TEST_CASE("attention: not even a NaN reaches a query from a later key or another sequence") {
  const Tensor q = random({150, 1, 8}, 1, 1, DType::f32), k = random({150, 1, 8}, 2, 1, DType::f32),
               v = random({150, 1, 8}, 3, 1, DType::f32);
  const Tensor offsets = integers({0, 110, 150});
  const Tensor clean = attention(q, k, v, offsets, offsets);
  for (const int64_t at : {5, 63, 64, 77, 109, 110, 149}) {
    Tensor dirty_k = clone(k), dirty_v = clone(v);
    dirty_k.data<float>()[at * 8 + 1] = std::numeric_limits<float>::quiet_NaN();
    dirty_v.data<float>()[at * 8 + 2] = std::numeric_limits<float>::infinity();
    const Tensor y = attention(q, dirty_k, dirty_v, offsets, offsets);
    CHECK(identical(rows(y, 0, at), rows(clean, 0, at)));
    CHECK(std::isnan(y.data<float>()[at * 8]));
    if (at < 110) CHECK(identical(rows(y, 110, 150), rows(clean, 110, 150)));
  }
}

TEST_CASE("attention: large scores") {
  const Tensor q = random({70, 1, 4}, 1, 1e4, DType::f32), k = random({70, 1, 4}, 2, 1e4, DType::f32),
               v = random({70, 1, 4}, 3, 1, DType::f32);
  const Tensor offsets = integers({0, 70}), y = attention(q, k, v, offsets, offsets);
  const Tensor expected = reference::attention(converted(q, DType::f64), converted(k, DType::f64),
                                               converted(v, DType::f64), offsets, offsets);
  CHECK(relative_error(y, expected) < 1e-5);
}

TEST_CASE(
    "attention: no more memory than the answer and its statistics, and in the backward pass the three gradients") {
  const int64_t length = 512, width = 16;
  Parameter q({length, 1, width}, Precision::fp32()), k({length, 1, width}, Precision::fp32()),
      v({length, 1, width}, Precision::fp32());
  for (Parameter* p : {&q, &k, &v}) fill_normal(p->value, {1, 0}, 1);
  Parameter* all[] = {&q, &k, &v};
  const Tensor offsets = integers({0, 512});
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Tape tape(all);
    const Tensor y = attention(q, k, v, offsets, offsets);
    CHECK(arena.peak() == size_t(length * (width + 1) * 4));
  }
}

TEST_CASE("attention: what does not fit is an error that says what was expected") {
  const Tensor q = random({4, 2, 8}, 1), k = random({4, 1, 8}, 2), one = integers({0, 4});
  CHECK_THROWS_WITH_AS(attention(q, random({4, 3, 8}, 1), random({4, 3, 8}, 1), one, one),
                       doctest::Contains("H a multiple of G, got q f64 [4, 2, 8], k f64 [4, 3, 8]"), Error);
  CHECK_THROWS_AS(attention(q, k, random({4, 1, 6}, 1), one, one), Error);
  CHECK_THROWS_AS(attention(q, k, converted(k, DType::f32), one, one), Error);
  CHECK_THROWS_WITH_AS(attention(q, k, k, integers({0, 3}), one),
                       doctest::Contains("the offsets cover 3 queries and 4 keys, expected 4 and at most 4"), Error);
  CHECK_THROWS_WITH_AS(attention(q, k, k, integers({0, 2, 4}), integers({0, 1, 4})),
                       doctest::Contains("sequence 0 has 2 queries and 1 keys"), Error);
  CHECK_THROWS_AS(attention(q, k, k, integers({0, 2, 4}), one), Error);
}
