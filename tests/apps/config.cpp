#include "apps/config.h"

#include <algorithm>

#include "apps/config_sections.h"
#include "tests/support/message.h"
#include "tests/support/toy_strategy.h"

using namespace agon;
using namespace agon::test;

TEST_CASE("config: every key says what it means, and its default is in its range") {
  Config c = specimen();
  size_t keys = 0;
  for (const ConfigSection& section : sections_of(c)) {
    for (const Option& option : section.options) {
      INFO(section.path(option.name));
      ++keys;
      CHECK_FALSE(option.help.empty());
      if (const auto* integer = std::get_if<int64_t*>(&option.field)) CHECK(option.range.holds(double(**integer)));
      if (const auto* number = std::get_if<double*>(&option.field)) CHECK(option.range.holds(**number));
      const auto* word = std::get_if<std::string*>(&option.field);
      if (word && !option.one_of.empty()) CHECK(std::ranges::count(option.one_of, **word) == 1);
      CHECK(std::ranges::count(section.options, option.name, &Option::name) == 1);
    }
  }
  CHECK(keys > 50);
}

TEST_CASE("config: precision as dtypes") {
  Config c;
  CHECK(c.numbers().compute == DType::f32);
  c.precision = "f64";
  CHECK(c.numbers().compute == DType::f64);
  c.precision = "bf16";
  CHECK(c.numbers().compute == DType::bf16);
  CHECK(c.numbers().master == DType::f32);
}

TEST_CASE("config: how a layer's rows travel between ranks") {
  ParallelOptions parallel;
  CHECK_FALSE(parallel.rows().bounded);
  CHECK_FALSE(parallel.rows().bf16);
  CHECK_FALSE(parallel.rows().own_too);
  parallel.exchange = "bounded";
  parallel.exchange_bound = 1.25;
  parallel.exchange_dtype = "bf16";
  parallel.exchange_own = true;
  CHECK(parallel.rows().bounded);
  CHECK(parallel.rows().bound == 1.25);
  CHECK(parallel.rows().bf16);
  CHECK(parallel.rows().own_too);
}

TEST_CASE("config: which blocks have experts") {
  MoeConfig moe;
  CHECK_FALSE(moe.has_experts(0));
  moe.enabled = true;
  CHECK(moe.has_experts(0));
  moe.placement.every = 2;
  CHECK_FALSE(moe.has_experts(0));
  CHECK(moe.has_experts(1));
  CHECK_FALSE(moe.has_experts(2));
  CHECK(moe.has_experts(3));
  moe.placement.first_dense = 2;
  CHECK_FALSE(moe.has_experts(1));
  CHECK(moe.has_experts(3));
}

TEST_CASE("config: a strategy by name, or the nearest one") {
  const ToyStrategies strategies;
  const RouterChoice choice = router_named("toy");
  CHECK(choice.strategy == "toy");
  CHECK(dynamic_cast<ToyOptions*>(choice.options.get()) != nullptr);
  check_contains(user_error([] { router_named("tyo"); }), {"unknown strategy \"tyo\"", "\"toy\""});
}
