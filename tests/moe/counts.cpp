#include "moe/counts.h"

#include <doctest/doctest.h>

#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("counts: pairs per scope and expert, empty scopes and bounds that are not reached") {
  // Tokens with the experts 0 2 | 2 | none | 1 2 0; two places are free.
  const Tensor expert = there(tensor_of<int32_t>({0, 2, 2, 1, 2, 0, -1, -1}));
  const Tensor offsets = there(tensor_of<int32_t>({0, 2, 3, 3, 6}));
  const Tensor scopes = there(tensor_of<int32_t>({0, 0, 2, 3, 4, 4}));
  const Tensor counts = without_crossing([&] { return count_experts(expert, offsets, scopes, 4); });
  CHECK(identical(counts,
                  tensor_of<double>({0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0}).reshape({5, 4})));
  const Tensor share = shares_of(counts);
  CHECK(identical(
      share, tensor_of<double>({0, 0, 0, 0, 1. / 3, 0, 2. / 3, 0, 0, 0, 0, 0, 1. / 3, 1. / 3, 1. / 3, 0, 0, 0, 0, 0})
                 .reshape({5, 4})));

  const Tensor all =
      without_crossing([&] { return count_experts(expert, offsets, one_scope(4, device_of_case()), 3); });
  CHECK(identical(all, tensor_of<double>({2, 1, 3}).reshape({1, 3})));
  add_counts(all, there(tensor_of<double>({10, 0, 0.5})));
  CHECK(identical(all, tensor_of<double>({12, 1, 3.5}).reshape({1, 3})));
  CHECK_THROWS_WITH(add_counts(all, share), doctest::Contains("[5, 4]"));
}

DEVICE_CASE("counts: no tokens, one expert, more pairs than a block has threads") {
  const Tensor none({0}, DType::i32, device_of_case());
  const Tensor zero = count_experts(none, there(tensor_of<int32_t>({0})), one_scope(0, device_of_case()), 2);
  CHECK(identical(zero, tensor_of<double>({0, 0}).reshape({1, 2})));
  const int64_t T = 2500;
  const Tensor every({T}, DType::i32, device_of_case()), offsets({T + 1}, DType::i32, device_of_case());
  fill(every, 0);
  fill_steps(offsets, 0, 1);
  const Tensor one = count_experts(every, offsets, there(tensor_of<int32_t>({0, 7, int32_t(T)})), 1);
  CHECK(identical(one, tensor_of<double>({7, double(T - 7)}).reshape({2, 1})));
  CHECK(identical(shares_of(one), tensor_of<double>({1, 1}).reshape({2, 1})));
}

GPU_CASE("counts: on a GPU as on the CPU, in any order of threads") {
  const int64_t T = 700, E = 37;
  const RandomPairs pairs = random_pairs(T, E, 3, 5);
  const Tensor scopes = tensor_of<int32_t>({0, 130, 130, 131, 700});
  const Tensor expected = count_experts(pairs.expert, pairs.token_offsets, scopes, E), share = shares_of(expected);
  const Tensor expert = there(pairs.expert), offsets = there(pairs.token_offsets), where = there(scopes);
  for (const uint64_t order : {0, 1, 2}) {
    const ThreadOrder changed(order);
    const Tensor found = count_experts(expert, offsets, where, E);
    CHECK(identical(found, expected));
    CHECK(identical(shares_of(found), share));
  }
}
