#include "moe/weights.h"

#include <doctest/doctest.h>

#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("weights: values, zeros past the last pair, gradients") {
  const RandomPairs pairs = random_pairs(12, 5, 3, 4);
  const int64_t N = pairs.expert.size();
  const Tensor scores = random({12, 5}, 1), positive = random({N}, 2);
  for (double& v : positive.data<double>()) v = std::abs(v) + 0.1;
  const auto offset = pairs.token_offsets.data<const int32_t>(), expert = pairs.expert.data<const int32_t>();

  const Tensor gathered = gather_scores(scores, pairs.expert, pairs.token_offsets);
  const Tensor share = over_selected(positive, pairs.token_offsets, 0.25);
  for (int64_t t = 0; t < 12; ++t) {
    double sum = 0.25;
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) sum += positive.data<double>()[i];
    for (int32_t i = offset[t]; i < offset[t + 1]; ++i) {
      CHECK(gathered.data<double>()[i] == scores.data<double>()[t * 5 + expert[i]]);
      CHECK(share.data<double>()[i] == doctest::Approx(positive.data<double>()[i] / sum));
    }
  }
  for (int64_t i = offset[12]; i < N; ++i) {
    CHECK(gathered.data<double>()[i] == 0);
    CHECK(share.data<double>()[i] == 0);
  }

  const auto gather = [&](const auto& in) { return probe(gather_scores(in[0], pairs.expert, pairs.token_offsets), 5); };
  CHECK(gradient_error({scores}, gather) < 1e-8);
  CHECK(gradient_error({positive}, [&](const auto& in) {
          return probe(over_selected(in[0], pairs.token_offsets, 0.25), 5);
        }) < 1e-8);
  const Tensor all = random({6, 4}, 8);
  for (double& v : all.data<double>()) v = std::abs(v) + 0.1;
  CHECK(gradient_error({all}, [&](const auto& in) { return probe(over_all(in[0], 1e-20), 5); }) < 1e-8);
  CHECK(dot(over_all(all), tensor_of(std::vector<double>(24, 1.0))) == doctest::Approx(6));
}

TEST_CASE("weights: kept values follow their pairs, the dropped ones get no gradient") {
  const Tensor values = random({5}, 1), pair = tensor_of<int32_t>({1, 4, 2, -1, -1});
  const Tensor y = kept_values(values, pair);
  for (size_t i = 0; i < 5; ++i) {
    const int32_t from = pair.data<int32_t>()[i];
    CHECK(y.data<double>()[i] == (from < 0 ? 0 : values.data<double>()[from]));
  }
  CHECK(gradient_error({values}, [&](const auto& in) { return probe(kept_values(in[0], pair), 5); }) < 1e-8);
}

TEST_CASE("weights: no tokens, tokens without pairs") {
  const Tensor none({0}, DType::f32), offsets = tensor_of<int32_t>({0, 0, 0});
  CHECK(gather_scores(random({2, 3}, 1, 1, DType::f32), Tensor({0}, DType::i32), offsets).size() == 0);
  CHECK(over_selected(none, offsets).size() == 0);
  CHECK(over_all(Tensor({0, 3}, DType::f32)).size() == 0);
}

namespace {

/// |normal| + 0.1.
Tensor positive(Shape shape, uint64_t seed) {
  const Tensor x = random(shape, seed);
  for (double& v : x.data<double>()) v = std::abs(v) + 0.1;
  return x;
}

}  // namespace

GPU_CASE("weights: all of them as on the CPU, forward and backward, without crossing") {
  for (const auto& [tokens, experts, spare] : {std::tuple{1, 1, 0}, {1, 1, 300}, {12, 5, 4}, {40, 70, 1000}}) {
    CAPTURE(tokens);
    const RandomPairs pairs = random_pairs(tokens, experts, 3, spare);
    const Tensor scores = positive({tokens, experts}, 1), values = positive(pairs.expert.shape(), 2);
    const auto at = [](const Tensor& list, const Tensor& beside) { return on_device(list, beside.device()); };
    const auto of_scores = [&](auto&& f) {
      op_case(against_cpu({scores}, [&](const auto& in) {
        return f(wide(in[0]), at(pairs.expert, in[0]), at(pairs.token_offsets, in[0]));
      }));
    };
    const auto of_values = [&](auto&& f) {
      op_case(against_cpu({values}, [&](const auto& in) { return f(wide(in[0]), at(pairs.token_offsets, in[0])); }));
    };
    of_scores(
        [](const Tensor& s, const Tensor& expert, const Tensor& offsets) { return gather_scores(s, expert, offsets); });
    for (const WeightRule rule : {WeightRule::over_selected, WeightRule::over_all})
      of_scores([&](const Tensor& s, const Tensor& expert, const Tensor& offsets) {
        return weights_of(s, rule, expert, offsets, 0.125);
      });
    of_scores([](const Tensor& s, const Tensor&, const Tensor&) { return over_all(s, 1e-20); });
    of_values([](const Tensor& v, const Tensor& offsets) { return over_selected(v, offsets, 0.25); });
    of_values([](const Tensor& v, const Tensor& offsets) { return softmax_selected(v, offsets); });
    op_case(against_cpu({scores, values}, [&](const auto& in) {
      return with_values(wide(in[0]), wide(in[1]), at(pairs.expert, in[0]), at(pairs.token_offsets, in[0]));
    }));
    std::vector<int32_t> kept;
    for (int32_t i = 0; i < int32_t(values.size()); ++i)
      kept.push_back(i % 3 == 1 ? -1 : int32_t(values.size()) - 1 - i);
    op_case(
        against_cpu({values}, [&](const auto& in) { return kept_values(wide(in[0]), at(tensor_of(kept), in[0])); }));
  }
  const RandomPairs pairs = random_pairs(9, 4, 3, 2);
  const Tensor scores = there(random({9, 4}, 1, 1, DType::f32)), expert = there(pairs.expert),
               offsets = there(pairs.token_offsets);
  const Crossings before = crossings();
  over_all(scores);
  weights_of(scores, WeightRule::over_selected, expert, offsets);
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
}

GPU_CASE("weights: no tokens, tokens without pairs, entries past the last pair") {
  const Tensor offsets = there(tensor_of<int32_t>({0, 0, 0}));
  const Tensor scores = there(random({2, 3}, 1, 1, DType::f32));
  CHECK(gather_scores(scores, there(Tensor({0}, DType::i32)), offsets).size() == 0);
  CHECK(over_selected(there(Tensor({0}, DType::f32)), offsets).size() == 0);
  CHECK(over_all(there(Tensor({0, 3}, DType::f32))).size() == 0);
  const Tensor room = there(random({400}, 2, 1, DType::f32)), zeros = Tensor({400}, DType::f32).zero();
  CHECK(identical(over_selected(room, offsets), zeros));
  CHECK(identical(softmax_selected(room, offsets), zeros));
  CHECK(identical(gather_scores(scores, there(tensor_of(std::vector<int32_t>(400, -1))), offsets), zeros));
}
