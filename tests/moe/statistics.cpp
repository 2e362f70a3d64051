#include "moe/statistics.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("statistics: figures of a load") {
  auto even = load_figures(tensor_of<double>({3, 3, 3, 3}));
  CHECK(even["load_entropy"] == doctest::Approx(1));
  CHECK(even["load_max"] == doctest::Approx(1));
  CHECK(even["fairness"] == doctest::Approx(1));
  CHECK(even["load_cv2"] == doctest::Approx(0));
  CHECK(even["dead"] == 0);
  auto collapsed = load_figures(tensor_of<double>({0, 8, 0, 0}));
  CHECK(collapsed["load_entropy"] == doctest::Approx(0));
  CHECK(collapsed["load_max"] == doctest::Approx(4));
  CHECK(collapsed["fairness"] == doctest::Approx(0.25));
  CHECK(collapsed["load_cv2"] == doctest::Approx(3));
  CHECK(collapsed["dead"] == 3);
  CHECK(load_figures(tensor_of<double>({5}))["load_entropy"] == 1);
  CHECK(load_figures(tensor_of<double>({0, 0}))["dead"] == 2);
}

TEST_CASE("statistics: of pairs, before and after dropping") {
  Pairs pairs;
  pairs.chosen = tensor_of<int32_t>({0, 1, 0, 2, 0, 1});
  pairs.chosen_offsets = tensor_of<int32_t>({0, 2, 4, 6});
  pairs.expert = tensor_of<int32_t>({0, 1, 0, -1, -1, -1});
  pairs.token_offsets = tensor_of<int32_t>({0, 2, 3, 3});
  const Tensor p = tensor_of<double>({.5, .3, .2, .5, .1, .4, 1, 0, 0}).reshape({3, 3});
  Statistics s = describe(pairs, p);
  CHECK(identical(s.load, tensor_of<double>({2, 1, 0})));
  CHECK(identical(s.chosen, tensor_of<double>({3, 2, 1})));
  CHECK(s.scalars().at("dropped") == doctest::Approx(0.5));
  CHECK(s.scalars().at("experts_per_token") == doctest::Approx(1));
  for (const char* name : {"tokens_with_0", "tokens_with_1", "tokens_with_2"})
    CHECK(s.scalars().at(name) == doctest::Approx(1. / 3));
  CHECK(!s.scalars().contains("tokens_with_3"));
  CHECK(s.scalars().at("margin") == doctest::Approx((.1 + .3 + 0) / 3));
  const auto h = [](double v) { return -v * std::log(v); };
  CHECK(s.scalars().at("entropy") == doctest::Approx((h(.5) + h(.3) + h(.2) + h(.5) + h(.1) + h(.4)) / 3));
  CHECK(s.scalars().at("dead") == 1);

  pairs.chosen = pairs.expert;  // nothing dropped: one count serves both
  pairs.chosen_offsets = pairs.token_offsets;
  s = describe(pairs, p);
  CHECK(s.chosen.id() == s.load.id());
  CHECK(s.scalars().at("dropped") == 0);
}

TEST_CASE("statistics: no tokens, every token has every expert") {
  Pairs pairs;
  pairs.chosen = pairs.expert = Tensor({0}, DType::i32);
  pairs.chosen_offsets = pairs.token_offsets = tensor_of<int32_t>({0});
  CHECK(describe(pairs, Tensor({0, 2}, DType::f32)).scalars().at("dropped") == 0);
  pairs.chosen = pairs.expert = tensor_of<int32_t>({0, 1});
  pairs.chosen_offsets = pairs.token_offsets = tensor_of<int32_t>({0, 2});
  CHECK(!describe(pairs, tensor_of<float>({.5f, .5f}).reshape({1, 2})).scalars().contains("margin"));
}

namespace {

Pairs pairs_there(const RandomPairs& kept, const RandomPairs& chosen) {
  Pairs pairs;
  pairs.expert = there(kept.expert);
  pairs.token_offsets = there(kept.token_offsets);
  pairs.chosen = there(chosen.expert);
  pairs.chosen_offsets = there(chosen.token_offsets);
  return pairs;
}

/// A dropping of pairs: of each token that has two or more its last.
RandomPairs without_last(const RandomPairs& all) {
  std::vector<int32_t> expert, offsets{0};
  const auto offset = all.token_offsets.data<int32_t>();
  for (size_t t = 0; t + 1 < offset.size(); ++t) {
    for (int32_t i = offset[t]; i < offset[t + 1] && (i == offset[t] || i + 1 < offset[t + 1]); ++i)
      expert.push_back(all.expert.data<int32_t>()[i]);
    offsets.push_back(int32_t(expert.size()));
  }
  expert.resize(size_t(all.expert.size()), -1);
  return {tensor_of(expert), tensor_of(offsets)};
}

void check_figures_on_gpu(int64_t tokens, int64_t experts) {
  CAPTURE(tokens);
  CAPTURE(experts);
  const RandomPairs chosen = random_pairs(tokens, experts, 3, 4), kept = without_last(chosen);
  Tensor p({tokens, experts}, DType::f32);
  for (size_t i = 0; float& v : p.data<float>()) v = float(i++ * 7919 % 13) / 13;  // with ties and zeros
  const Device device = std::exchange(device_of_case(), Device{});
  const Statistics expected = describe(pairs_there(kept, chosen), p);
  device_of_case() = device;
  const Pairs pairs = pairs_there(kept, chosen);
  const Tensor probabilities = there(p);
  const Statistics found = without_crossing([&] { return describe(pairs, probabilities); });
  CHECK(identical(found.load, expected.load));
  CHECK(identical(found.chosen, expected.chosen));
  CHECK(found.figures.names == expected.figures.names);
  const auto a = found.scalars(), b = expected.scalars();
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : b) {
    CAPTURE(name);
    REQUIRE(a.contains(name));
    CHECK(a.at(name) == doctest::Approx(value).epsilon(1e-6));
  }
  for (const uint64_t order : {1, 2}) {
    const ThreadOrder changed(order);
    CHECK(identical(describe(pairs, probabilities).figures.values, found.figures.values));
  }
}

}  // namespace

GPU_CASE("statistics: on a GPU as on the CPU") {
  check_figures_on_gpu(300, 5);
  check_figures_on_gpu(65, 40);
  check_figures_on_gpu(1, 4);
  check_figures_on_gpu(7, 1);
  check_figures_on_gpu(0, 3);
}

DEVICE_CASE("statistics: a figure is added where it is made, and one that does not occur is not read") {
  Statistics s;
  CHECK(s.scalars().empty());
  const Tensor three = there(tensor_of<float>({3})), half = there(tensor_of<double>({0.5})),
               absent = there(tensor_of<double>({std::nan("")}));
  without_crossing([&] {
    add_figure(s, "three", three);
    add_figure(s, "absent", absent);
    add_figure(s, "a_quarter", half, 2);
    return 0;
  });
  CHECK(s.figures.values.device() == device_of_case());
  CHECK(s.scalars() == std::map<std::string, double>{{"three", 3}, {"a_quarter", 0.25}});
  CHECK_THROWS_WITH(add_figure(s, "two", s.figures.values), doctest::Contains("two"));
}
