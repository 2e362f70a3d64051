#include "moe/statistics.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/moe/support.h"

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
