#include "ops/embedding.h"

#include "ops/reference.h"
#include "tests/ops/support.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("embedding: against the reference, with tokens that repeat and tokens nobody used") {
  Random draw({1, 0});
  for (const auto& [vocabulary, width, count] : {std::array{1, 1, 1}, {7, 3, 20}, {50, 17, 0}, {300, 129, 411}}) {
    std::vector<int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(int32_t(draw.below(uint64_t(vocabulary))));
    const Tensor token = integers(ids);
    op_case({{random({vocabulary, width}, 1)},
             [=](auto& in) { return embedding(in[0], token); },
             [=](auto& in) { return reference::embedding(in[0], token); },
             [=](const Tensor& dy, auto& in) { return std::vector{reference::embedding_backward(dy, in[0], token)}; }});
  }
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
