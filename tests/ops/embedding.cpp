#include "ops/embedding.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("embedding: against the reference, with tokens that repeat and tokens nobody used") {
  Random draw({1, 0});
  for (const auto& [vocabulary, width, count] : {std::array{1, 1, 1}, {7, 3, 20}, {50, 17, 0}, {300, 129, 411}}) {
    std::vector<int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(int32_t(draw.below(uint64_t(vocabulary))));
    const Tensor token = integers(ids), placed = there(token);
    op_case({{random({vocabulary, width}, 1)},
             [=](auto& in) { return embedding(in[0], placed); },
             [=](auto& in) { return reference::embedding(in[0], token); },
             [=](const Tensor& dy, auto& in) { return std::vector{reference::embedding_backward(dy, in[0], token)}; }});
  }
}

GPU_CASE("embedding: the gradient has the bits of the CPU, whatever order threads run in") {
  std::vector<int32_t> ids;
  Random draw({1, 0});
  for (int i = 0; i < 3000; ++i) ids.push_back(int32_t(std::min(draw.below(40), draw.below(40))));
  const Tensor token = integers(ids), dy = random({3000, 5}, 1, 1, DType::f32),
               before = random({41, 5}, 2, 1, DType::f32);
  for (const bool add : {false, true})
    for (const uint64_t order : {0, 1, 2}) {
      const ThreadOrder changed(order);
      const Tensor on_cpu = clone(before), on_gpu = there(clone(before));
      Embedding::Backward::cpu(on_cpu, add, dy, token);
      run<Embedding::Backward>(on_gpu.device(), on_gpu, add, there(dy), there(token));
      CHECK(identical(on_gpu, on_cpu));
    }
}

GPU_CASE("embedding: a token outside of the vocabulary gives NaN and no gradient") {
  const Tensor table = random({4, 3}, 1, 1, DType::f32), dy = random({4, 3}, 2, 1, DType::f32);
  const Tensor wrong = integers({0, 4, -1, 2});
  const Tensor y = on_host(embedding(there(table), there(wrong)));
  for (size_t i = 0; i < 12; ++i) CHECK(std::isnan(y.data<float>()[i]) == (i >= 3 && i < 9));
  const Tensor dtable = there(Tensor({4, 3}, DType::f32));
  run<Embedding::Backward>(dtable.device(), dtable, false, there(dy), there(wrong));
  Tensor expected({4, 3}, DType::f32);
  fill(expected, 0);
  for (size_t d = 0; d < 3; ++d) {
    expected.data<float>()[d] = dy.data<float>()[d];
    expected.data<float>()[6 + d] = dy.data<float>()[9 + d];
  }
  CHECK(identical(dtable, expected));
}

TEST_CASE("embedding: a table that is also the head adds both gradients") {
  const Tensor token = integers({2, 0, 2, 3});
  CHECK(gradient_error({random({4, 3}, 1)}, [&](auto& in) {
          return probe(embedding(in[0], integers({1, 1, 2})), 2);
        }) < 1e-8);
  Parameter table({4, 3}, Precision::fp32());
  Parameter* all[] = {&table};
  Tape tape(all);
  const Tensor a = embedding(table, token), b = embedding(table, token);
  CHECK(tape.size() == 2);
}

TEST_CASE("embedding: a token outside of the vocabulary is the user's mistake") {
  const Tensor table = random({4, 3}, 1);
  CHECK_THROWS_WITH_AS(embedding(table, integers({0, 4})), "embedding: token 4 is not in a vocabulary of 4", UserError);
  CHECK_THROWS_AS(embedding(table, integers({-1})), UserError);
  CHECK_THROWS_AS(embedding(random({4}, 1), integers({0})), Error);
  CHECK_THROWS_AS(embedding(table, random({2}, 1)), Error);
}
