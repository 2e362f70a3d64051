#include "moe/distillation.h"

#include <doctest/doctest.h>

#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("distillation: the formula and its gradient") {
  const int64_t T = 8, E = 5;
  const RandomPairs pairs = random_pairs(T, E, 4, 3);
  const Tensor q = random({T, E}, 1), P = random({T, E}, 2);
  const auto offset = pairs.token_offsets.data<int32_t>(), expert = pairs.expert.data<int32_t>();
  double all = 0, chosen = 0;
  const auto square = [&](int64_t i) {
    const double gap = q.data<double>()[i] - P.data<double>()[i];
    return gap * gap;
  };
  for (int64_t i = 0; i < T * E; ++i) all += square(i);
  for (int64_t t = 0; t < T; ++t)
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) chosen += square(t * E + expert[i]);
  const Tensor whole = tensor_of<int32_t>({0, int32_t(T)});
  for (double theta : {0.0, 0.2, 3.0}) {
    CHECK(distillation(q, P, pairs.expert, pairs.token_offsets, whole, theta).item() ==
          doctest::Approx(all / double(T * E) + theta * chosen / offset[T]).epsilon(1e-13));
    CHECK(gradient_error({q}, [&](const std::vector<Parameter>& in) {
            return distillation(in[0], P, pairs.expert, pairs.token_offsets, whole, theta);
          }) < 1e-7);
  }
}

TEST_CASE("distillation: no chosen pair, no token") {
  const Tensor q = random({3, 2}, 1), none({0}, DType::i32);
  CHECK(distillation(q, q, none, tensor_of<int32_t>({0, 0, 0, 0}), tensor_of<int32_t>({0, 3}), 1).item() == 0);
  const Tensor empty({0, 2}, DType::f32);
  CHECK(distillation(empty, empty, none, tensor_of<int32_t>({0}), tensor_of<int32_t>({0, 0}), 1).item() == 0);
}

GPU_CASE("distillation: as on the CPU, over groups of any length") {
  const auto check_on_gpu = [](int64_t T, int64_t E, const std::vector<int32_t>& groups) {
    CAPTURE(T);
    CAPTURE(E);
    const RandomPairs pairs = random_pairs(T, E, 4, 3);
    const Tensor q = random({T, E}, 1), P = converted(random({T, E}, 2), DType::f32), scope = tensor_of(groups);
    for (const double theta : {0.0, 0.2, 3.0})
      check_loss_on_gpu({q}, [&](const std::vector<Tensor>& in) {
        return distillation(in[0], there(converted(P, in[0].dtype())), there(pairs.expert), there(pairs.token_offsets),
                            there(scope), theta);
      });
  };
  check_on_gpu(150, 5, {0, 3, 3, 20, 150});
  check_on_gpu(70, 67, {0, 70});
  check_on_gpu(3, 1, {0, 1, 3});
  check_on_gpu(1, 3, {0, 1});  // which has no pair
}

GPU_CASE("distillation: no token") {
  const Tensor empty = there(Tensor({0, 2}, DType::f32)), none = there(Tensor({0}, DType::i32));
  const LossAndGradients found = differentiate({empty}, [&](const std::vector<Tensor>& in) {
    return distillation(in[0], empty, none, there(tensor_of<int32_t>({0})), there(tensor_of<int32_t>({0, 0})), 1);
  });
  CHECK(found.loss.item() == 0);
  CHECK(found.gradients[0].size() == 0);
}
