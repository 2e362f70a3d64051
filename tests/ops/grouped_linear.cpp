#include "ops/grouped_linear.h"

#include "ops/linear.h"
#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

// Empty groups at the start, in the middle and at the end; N is above the last offset.
const std::vector<int32_t> kOffsets = {0, 0, 5, 5, 18, 161, 161};
constexpr int64_t kGroups = 6, kBound = 300;

/// What a row block of a matrix holds, as a tensor of its own.
Tensor slice(const Tensor& t, int64_t begin, int64_t end) {
  Tensor s({end - begin, t.shape(-1)}, t.dtype());
  const int64_t row = t.shape(-1) * size_of(t.dtype());
  if (end > begin)
    std::memcpy(s.address(), static_cast<const char*>(t.address()) + begin * row, size_t((end - begin) * row));
  return s;
}

}  // namespace

DEVICE_CASE(
    "grouped_linear: against the reference, for rows of no group, of groups without rows, with and without bias") {
  const std::vector<int32_t> few = {0, 2, 2, 7, 8};
  const auto one_case = [](const std::vector<int32_t>& numbers, int64_t bound, int64_t in, int64_t out,
                           bool with_bias) {
    const Tensor offsets = integers(numbers), offsets_there = there(offsets);
    const int64_t groups = offsets.size() - 1;
    std::vector<Tensor> inputs = {random({bound, in}, 1), random({groups, out, in}, 2)};
    if (with_bias) inputs.push_back(random({groups, out}, 3));
    const auto bias = [](const std::vector<Tensor>& all) { return all.size() > 2 ? all[2] : Tensor(); };
    op_case(
        {inputs,
         [=](const std::vector<Tensor>& all) { return grouped_linear(all[0], all[1], offsets_there, bias(all)); },
         [=](const std::vector<Tensor>& all) { return reference::grouped_linear(all[0], all[1], offsets, bias(all)); },
         [=](const Tensor& dy, const std::vector<Tensor>& all) {
           const auto g = reference::grouped_linear_backward(dy, all[0], all[1], offsets);
           std::vector<Tensor> gradients = {g.dx, g.dw};
           if (with_bias) gradients.push_back(g.dbias);
           return gradients;
         },
         with_bias ? 1 : 0});
  };
  one_case(few, 11, 5, 3, true);
  one_case(few, 8, 5, 3, false);
  one_case(kOffsets, kBound, 33, 17, true);  // rows of odd widths, of 4 bytes and of 16
  one_case(kOffsets, kBound, 34, 18, false);
  one_case(kOffsets, kBound, 40, 24, false);
}

DEVICE_CASE("grouped_linear: rows of no group are zero, the gradient of a group without rows is") {
  const Tensor offsets = there(tensor_of(kOffsets));
  for (const Precision precision : {Precision::fp32(), Precision::bf16()}) {
    const Tensor rows = there(random({kBound, 33}, 1, 1, precision.compute));
    Parameter w({kGroups, 17, 33}, precision, device_of_case()), bias({kGroups, 17}, precision, device_of_case());
    copy(w.value, there(random({kGroups, 17, 33}, 2, 1, DType::f32)));
    copy(bias.value, there(random({kGroups, 17}, 3, 1, DType::f32)));
    fill(w.grad, 9);
    Parameter* all[] = {&w, &bias};
    Tape tape(all);
    tape.watch(rows);
    const Tensor y = grouped_linear(rows, w, offsets, bias);
    tape.backward(probe(y, 4));
    for (const Tensor& t : {y, tape.gradient(rows)}) {
      const Tensor unused = slice(on_host(t), kOffsets.back(), kBound);
      CHECK(dot(unused, unused) == 0);
    }
    const Tensor empty = slice(on_host(w.grad).reshape({kGroups * 17, 33}), 5 * 17, 6 * 17);
    CHECK(dot(empty, empty) == 0);
  }
}

TEST_CASE("grouped_linear: each group has the bits of linear on its rows alone, at any number of threads") {
  const Tensor offsets = tensor_of(kOffsets);
  const Tensor rows = random({kBound, 40}, 1, 1, DType::f32), w = random({kGroups, 24, 40}, 2, 1, DType::f32);
  for (int n : {1, 2, 3}) {
    set_threads(n);
    const Tensor y = grouped_linear(rows, w, offsets);
    for (int64_t e = 0; e < kGroups; ++e) {
      const int64_t begin = kOffsets[size_t(e)], end = kOffsets[size_t(e) + 1];
      const Tensor alone = linear(slice(rows, begin, end), slice(w.reshape({kGroups * 24, 40}), e * 24, e * 24 + 24));
      CHECK(identical(slice(y, begin, end), alone));
    }
  }
  set_threads(0);
}

DEVICE_CASE("grouped_linear: no rows at all give a zero gradient") {
  Parameter w({2, 3, 3}, Precision::fp32(), device_of_case());
  fill(w.grad, 9);
  Parameter* all[] = {&w};
  Tape tape(all);
  const Tensor y = grouped_linear(Tensor({0, 3}, DType::f32, device_of_case()), w, there(integers({0, 0, 0})));
  CHECK(y.shape() == Shape{0, 3});
  tape.backward(probe(y, 1));
  CHECK(dot(w.grad, w.grad) == 0);
}

TEST_CASE("grouped_linear: two uses add up, wrong offsets are an error") {
  const Tensor offsets = tensor_of<int32_t>({0, 2, 4});
  CHECK(gradient_error({random({4, 3}, 1), random({2, 3, 3}, 2)}, [&](auto& in) {
          return probe(grouped_linear(grouped_linear(in[0], in[1], offsets), in[1], offsets), 4);
        }) < 1e-8);
  CHECK_THROWS_AS(grouped_linear(random({3, 3}, 1), random({2, 3, 3}, 2), offsets), Error);
  CHECK_THROWS_AS(grouped_linear(random({4, 3}, 1), random({2, 3, 3}, 2), tensor_of<int32_t>({0, 3, 2})), Error);
  CHECK_THROWS_AS(grouped_linear(random({4, 3}, 1), random({2, 3, 3}, 2), tensor_of<int32_t>({0, 4})), Error);
}
