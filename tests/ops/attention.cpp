#include "ops/attention.h"

#include <array>
#include <cmath>
#include <limits>

#include "ops/reference_attention.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Some rows of a tensor, as one of their own on the host.
Tensor rows(const Tensor& t, int64_t begin, int64_t end) {
  const Tensor whole = on_host(t);
  Tensor part(t.shape().with(0, end - begin), t.dtype());
  const int64_t bytes = t.bytes() / t.shape(0);
  std::memcpy(part.address(), static_cast<const char*>(whole.address()) + begin * bytes, size_t((end - begin) * bytes));
  return part;
}

/// The op on the device of the case.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int32_t>& query_offsets,
              const std::vector<int32_t>& key_offsets) {
  return attention(there(q), there(k), there(v), there(integers(query_offsets)), there(integers(key_offsets)));
}

/// The dtypes a device computes in.
std::vector<DType> dtypes() {
  std::vector<DType> all{DType::f32, DType::bf16};
  if (device_of_case().kind == Device::cpu) all.push_back(DType::f64);
  return all;
}

double number(const Tensor& t, int64_t i) { return converted(on_host(t), DType::f64).data<double>()[size_t(i)]; }
void set_number(const Tensor& t, int64_t i, float value) {
  if (t.dtype() == DType::f64) t.data<double>()[size_t(i)] = value;
  if (t.dtype() == DType::f32) t.data<float>()[size_t(i)] = value;
  if (t.dtype() == DType::bf16) t.data<bf16>()[size_t(i)] = bf16(value);
}

void attention_case(int64_t heads, int64_t groups, int64_t width, const std::vector<int32_t>& query_offsets,
                    const std::vector<int32_t>& key_offsets) {
  const Tensor qo = integers(query_offsets), ko = integers(key_offsets);
  const Tensor qo_there = there(qo), ko_there = there(ko);
  const Shape keys{key_offsets.back(), groups, width};
  op_case({{random({query_offsets.back(), heads, width}, 1, 2), random(keys, 2), random(keys, 3)},
           [=](auto& in) { return attention(in[0], in[1], in[2], qo_there, ko_there); },
           [=](auto& in) { return reference::attention(in[0], in[1], in[2], qo, ko); },
           [=](const Tensor& dy, auto& in) { return reference::attention_backward(dy, in[0], in[1], in[2], qo, ko); }});
}

}  // namespace

DEVICE_CASE(
    "attention: against the reference, within a tile, at its edges and beyond, several sequences, grouped queries") {
  attention_case(1, 1, 1, {0, 1}, {0, 1});
  attention_case(2, 2, 3, {0, 5}, {0, 5});
  attention_case(4, 2, 8, {0, 9, 9, 12}, {0, 9, 9, 12});  // one sequence is empty
  attention_case(3, 1, 5, {0, 63, 127, 192}, {0, 63, 127, 192});
  attention_case(2, 1, 16, {0, 150}, {0, 150});
  attention_case(2, 2, 4, {0}, {0});
}

DEVICE_CASE("attention: fewer queries than keys, the last aligned with the last") {
  attention_case(2, 1, 4, {0, 1}, {0, 7});
  attention_case(2, 1, 4, {0, 3, 4, 4}, {0, 70, 71, 90});
  attention_case(1, 1, 6, {0, 70}, {0, 140});
  attention_case(1, 1, 6, {0, 20}, {0, 134});
}

// Where a GPU has kernels of their own: bf16, 64 or 128 wide.
DEVICE_CASE("attention: widths of the tensor-core kernels, and others no smaller") {
  attention_case(2, 1, 64, {0, 1, 1, 70}, {0, 1, 1, 70});
  if (!kSlow) attention_case(1, 1, 64, {0, 133}, {0, 133});
  attention_case(3, 3, 64, {0, 1, 18}, {0, 66, 150});
  attention_case(2, 2, 128, {0, 1, 38, 53}, {0, 1, 38, 53});
  if (!kSlow) attention_case(4, 2, 128, {0, 2, 70}, {0, 65, 135});
  attention_case(2, 1, 80, {0, 66}, {0, 66});
  attention_case(1, 1, 131, {0, 9}, {0, 70});
}

DEVICE_CASE("attention: rows of a cache after the last sequence are not read and have gradient 0") {
  for (const DType dtype : dtypes())
    for (const int64_t width : {4, 64, 128}) {
      CAPTURE(dtype);
      CAPTURE(width);
      const int64_t length = 70, seen = 5;
      const Tensor q = random({1, 2, width}, 1, 1, dtype), cache = random({length, 1, width}, 2, 1, dtype),
                   keys = rows(cache, 0, seen);
      for (int64_t i = seen * width; i < length * width; ++i) set_number(cache, i, std::nanf(""));
      const auto run = [&](const Tensor& k) {
        const Tensor q_there = there(q), k_there = there(k);
        Tape tape({});
        tape.watch(q_there);
        tape.watch(k_there);
        const Tensor y = attend(q_there, k_there, k_there, {0, 1}, {0, int32_t(seen)});
        tape.backward(testing::probe(y, 3));
        return std::array{y, tape.gradient(q_there), tape.gradient(k_there)};
      };
      const auto exact = run(keys), cached = run(cache);
      CHECK(identical(cached[0], exact[0]));
      CHECK(identical(cached[1], exact[1]));
      CHECK(identical(rows(cached[2], 0, seen), exact[2]));
      for (int64_t i = seen * width; i < length * width; i += 7) CHECK(number(cached[2], i) == 0);
      CHECK(number(cached[2], length * width - 1) == 0);
    }
}

DEVICE_CASE("attention: a query alone against cached keys has the bits it has in its sequence") {
  const bool on_gpu = device_of_case().kind == Device::cuda;
  const int64_t length = 200, heads = 4, groups = 2;
  for (const DType dtype : dtypes())
    for (const int64_t width : {24, 64, 128}) {
      if (dtype != DType::bf16 && width != 24) continue;
      CAPTURE(dtype);
      CAPTURE(width);
      const Tensor q = random({length, heads, width}, 1, 3, dtype), k = random({length, groups, width}, 2, 1, dtype),
                   v = random({length, groups, width}, 3, 1, dtype);
      const Tensor whole = on_host(attend(q, k, v, {0, 200}, {0, 200}));
      for (int32_t t = 0; t < length; t += on_gpu ? 21 : 1) {
        CAPTURE(t);
        const Tensor keys = rows(k, 0, t + 1), values = rows(v, 0, t + 1);
        REQUIRE(identical(attend(rows(q, t, t + 1), keys, values, {0, 1}, {0, t + 1}), rows(whole, t, t + 1)));
        const int32_t few = std::min(t + 1, 5 + t % 67);
        REQUIRE(identical(attend(rows(q, t + 1 - few, t + 1), keys, values, {0, few}, {0, t + 1}),
                          rows(whole, t + 1 - few, t + 1)));
      }
    }
}

DEVICE_CASE("attention: a sequence has the same bits in any company") {
  for (const DType dtype : dtypes())
    for (const int64_t width : {8, 64, 128}) {
      CAPTURE(dtype);
      CAPTURE(width);
      const Tensor q = random({100, 2, width}, 1, 1, dtype), k = random({100, 1, width}, 2, 1, dtype),
                   v = random({100, 1, width}, 3, 1, dtype);
      const Tensor both = attend(q, k, v, {0, 30, 100}, {0, 30, 100});
      const Tensor second = attend(rows(q, 30, 100), rows(k, 30, 100), rows(v, 30, 100), {0, 70}, {0, 70});
      CHECK(identical(rows(both, 30, 100), second));
    }
}

DEVICE_CASE("attention: not even a NaN reaches a query from a later key or another sequence") {
  for (const DType dtype : dtypes())
    for (const int64_t width : {8, 64, 128}) {
      CAPTURE(dtype);
      CAPTURE(width);
      const Tensor q = random({150, 1, width}, 1, 1, dtype), k = random({150, 1, width}, 2, 1, dtype),
                   v = random({150, 1, width}, 3, 1, dtype);
      const std::vector<int32_t> offsets{0, 110, 150};
      const Tensor clean = on_host(attend(q, k, v, offsets, offsets));
      for (const int64_t at : {5, 63, 64, 77, 109, 110, 149}) {
        CAPTURE(at);
        Tensor dirty_k = clone(k), dirty_v = clone(v);
        set_number(dirty_k, at * width + 1, std::numeric_limits<float>::quiet_NaN());
        set_number(dirty_v, at * width + 2, std::numeric_limits<float>::infinity());
        const Tensor y = on_host(attend(q, dirty_k, dirty_v, offsets, offsets));
        CHECK(identical(rows(y, 0, at), rows(clean, 0, at)));
        CHECK(std::isnan(number(y, at * width)));
        if (at < 110) CHECK(identical(rows(y, 110, 150), rows(clean, 110, 150)));
        // A value alone: its column, of those who see it.
        const Tensor z = on_host(attend(q, k, dirty_v, offsets, offsets));
        CHECK(identical(rows(z, 0, at), rows(clean, 0, at)));
        CHECK(number(z, at * width + 2) == std::numeric_limits<double>::infinity());
        CHECK(number(z, at * width + 1) == number(clean, at * width + 1));
        CHECK(number(z, at * width + 3) == number(clean, at * width + 3));
        if (at + 1 < 110) CHECK(std::isinf(number(z, 109 * width + 2)));
      }
    }
}

DEVICE_CASE("attention: large scores") {
  const Tensor q = random({70, 1, 4}, 1, 1e4, DType::f32), k = random({70, 1, 4}, 2, 1e4, DType::f32),
               v = random({70, 1, 4}, 3, 1, DType::f32);
  const Tensor offsets = integers({0, 70}), y = attend(q, k, v, {0, 70}, {0, 70});
  const Tensor expected = reference::attention(converted(q, DType::f64), converted(k, DType::f64),
                                               converted(v, DType::f64), offsets, offsets);
  CHECK(relative_error(y, expected) < 1e-5);
}

GPU_CASE("attention: nothing crosses between host and GPU") {
  for (const DType dtype : dtypes()) {
    const Tensor q = there(random({20, 2, 64}, 1, 1, dtype)), k = there(random({20, 1, 64}, 2, 1, dtype)),
                 offsets = there(integers({0, 3, 20})), dq = clone(q), dk = clone(k), dv = clone(k);
    const Tensor logsumexp({20, 2}, DType::f32, q.device());
    const Crossings before = crossings();
    const Tensor y = attention(q, k, k, offsets, offsets);
    run<Attention::Forward>(q.device(), y, logsumexp, q, k, k, offsets, offsets);
    run<Attention::Backward>(q.device(), dq, dk, dv, y, y, logsumexp, q, k, k, offsets, offsets);
    CHECK(crossings().to_device == before.to_device);
    CHECK(crossings().to_host == before.to_host);
  }
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
