#include "apps/config_sections.h"

#include <iterator>

namespace agon {

namespace {

std::vector<std::string> strategies() {
  std::vector<std::string> names;
  for (const auto& [name, make] : routers()) names.push_back(name);
  return names;
}

}  // namespace

ConfigSection router_section(const std::string& name, RouterChoice& choice) {
  ConfigSection section{name, {}};
  section.options.push_back(
      {"strategy", &choice.strategy, Range::any(), strategies(), "how tokens and experts find each other"});
  if (choice.options) std::ranges::move(options_of(*choice.options), std::back_inserter(section.options));
  return section;
}

std::vector<ConfigSection> sections_of(Config& c) {
  OptionCollector top;
  c.visit_top(top);
  std::vector<ConfigSection> all{
      {"", std::move(top.options)}, {"data", options_of(c.data)}, {"model", options_of(c.model)}};
  if (c.moe.enabled) {
    all.push_back({"moe", options_of(c.moe.layer)});
    std::ranges::move(options_of(c.moe.placement), std::back_inserter(all.back().options));
    all.push_back(router_section("moe.router", c.moe.router));
    for (auto& [index, choice] : c.moe.layers)
      all.push_back(router_section("moe.layer." + std::to_string(index), choice));
  }
  all.push_back({"train", options_of(c.train)});
  all.push_back({"optimizer", options_of(c.optimizer)});
  all.push_back({"parallel", options_of(c.parallel)});
  all.push_back({"log", options_of(c.log)});
  return all;
}

Config specimen() {
  Config c;
  c.moe.enabled = true;
  c.moe.router = router_named(c.moe.router.strategy);
  return c;
}

std::vector<std::string> section_names() {
  Config c;
  c.moe.enabled = true;
  std::vector<std::string> names;
  for (const ConfigSection& section : sections_of(c)) {
    if (!section.name.empty()) names.push_back(section.name);
  }
  return names;
}

}  // namespace agon
