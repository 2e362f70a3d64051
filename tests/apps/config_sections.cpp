#include "apps/config_sections.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/toy_strategy.h"

using namespace agon;

namespace {

std::vector<std::string> names(Config& config) {
  std::vector<std::string> all;
  for (const ConfigSection& section : sections_of(config)) all.push_back(section.name);
  return all;
}

}  // namespace

TEST_CASE("config_sections: in the order of the file, experts only when there are some") {
  const test::ToyStrategies strategies;
  Config c;
  CHECK(names(c) == std::vector<std::string>{"", "data", "model", "train", "optimizer", "parallel", "log"});
  c.moe.enabled = true;
  c.moe.router = router_named("toy");
  c.moe.layers[10] = router_named("toy");
  c.moe.layers[2] = router_named("toy");
  CHECK(names(c) == std::vector<std::string>{"", "data", "model", "moe", "moe.router", "moe.layer.2", "moe.layer.10",
                                             "train", "optimizer", "parallel", "log"});
  CHECK(section_names() ==
        std::vector<std::string>{"data", "model", "moe", "moe.router", "train", "optimizer", "parallel", "log"});
}

TEST_CASE("config_sections: options point into the config") {
  const test::ToyStrategies strategies;
  Config c;
  c.moe.enabled = true;
  c.moe.router = router_named("toy");
  for (const ConfigSection& section : sections_of(c)) {
    for (const Option& option : section.options) {
      if (section.path(option.name) == "moe.router.k") *std::get<int64_t*>(option.field) = 5;
      if (section.path(option.name) == "moe.experts") *std::get<int64_t*>(option.field) = 6;
      if (section.path(option.name) == "seed") *std::get<int64_t*>(option.field) = 7;
    }
  }
  CHECK(dynamic_cast<test::ToyOptions&>(*c.moe.router.options).k == 5);
  CHECK(c.moe.layer.experts == 6);
  CHECK(c.seed == 7);
}
