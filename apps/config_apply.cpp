#include "apps/config_apply.h"

#include <algorithm>
#include <charconv>

#include "apps/config_sections.h"
#include "apps/nearest.h"
#include "apps/utf8.h"
#include "core/error.h"
#include "moe/answers.h"

namespace agon {

namespace {

constexpr std::string_view kLayer = "moe.layer.";

/// How the message about a key that a section does not have ends. An exact match elsewhere is likelier meant than a
/// similar key here.
std::string hint_for(const ConfigSection& section, const std::string& key) {
  Config everything = specimen();
  for (const ConfigSection& other : sections_of(everything)) {
    for (const Option& option : other.options) {
      if (option.name == key && other.name != section.name && !section.name.starts_with(kLayer) &&
          section.name != "moe.router")
        return "; did you mean \"" + other.path(key) + "\"?";
    }
  }
  std::vector<std::string> keys;
  for (const Option& option : section.options) keys.push_back(option.name);
  return suggestion(key, keys);
}

[[noreturn]] void unknown_key(const ConfigSection& section, const std::string& key, const Setting& setting,
                              const Config& config) {
  const std::string path = section.path(printable(key));
  const auto names = section_names();
  require(!section.name.empty() || !std::ranges::count(names, key), setting.place.exact(), ": ", path, ": found ",
          found(setting), ", expected the section [", key, "] with keys of its own");
  const bool layer = section.name.starts_with(kLayer);
  if (layer || section.name == "moe.router") {
    const std::string& strategy = *std::get<std::string*>(section.options.front().field);
    const std::string chosen = config.named(section.name + ".strategy");
    throw UserError(
        text(setting.place.exact(), ": ", path, ": the strategy \"", strategy, "\" has no key \"", printable(key), "\"",
             chosen.ends_with(')') ? " (strategy from " + config.origin.at(section.name + ".strategy") + ")" : "",
             hint_for(section, key)));
  }
  throw UserError(text(setting.place.exact(), ": ", path, ": unknown key",
                       section.name.empty() ? "" : " in [" + section.name + "]", hint_for(section, key)));
}

void apply(const ConfigSection& section, const Settings& settings, Config& config) {
  const auto given = settings.find(section.name);
  if (given == settings.end()) return;
  for (const auto& [key, setting] : given->second.keys) {
    if (!std::ranges::count(section.options, key, &Option::name)) unknown_key(section, key, setting, config);
  }
  for (const Option& option : section.options) {
    const auto setting = given->second.keys.find(option.name);
    if (setting == given->second.keys.end()) continue;
    store(option, section.path(option.name), setting->second);
    config.origin[section.path(option.name)] = setting->second.place.origin();
  }
}

/// The strategy of freely chosen axes that keys ask for without naming a strategy: they name `selection`, `weight`, or
/// a `score` that is another strategy's; "" when they do not.
std::string composed_by(const std::map<std::string, Setting>& keys) {
  const auto score = keys.find("score");
  const std::string* const name = score == keys.end() ? nullptr : std::get_if<std::string>(&score->second.value);
  const bool answers = name && std::ranges::count(answer_score_names(), *name);
  if (!keys.contains("selection") && !keys.contains("weight") && !answers && !(name && *name == "unified")) return "";
  return answers ? "composed_answers" : "composed";
}

/// Makes the options of the strategy that the section names, else of the one `choice` has.
void choose(const std::string& name, RouterChoice& choice, const Settings& settings, Config& config) {
  const ConfigSection section = router_section(name, choice);
  if (const auto given = settings.find(name); given != settings.end()) {
    if (const auto strategy = given->second.keys.find("strategy"); strategy != given->second.keys.end()) {
      const std::string path = section.path("strategy");
      store(section.options.front(), path, strategy->second);
      config.origin[path] = strategy->second.place.origin();
    } else if (const std::string composed = composed_by(given->second.keys);
               !composed.empty() && !choice.strategy.starts_with("composed")) {
      choice.strategy = composed;
    }
  }
  choice.options = router_named(choice.strategy).options;
}

/// The index in "moe.layer.3"; -1 when the name is none of those.
int64_t layer_index(std::string_view name) {
  if (!name.starts_with(kLayer)) return -1;
  name.remove_prefix(kLayer.size());
  int64_t index = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool whole = error == std::errc() && end == name.data() + name.size() && std::to_string(index) == name;
  return whole ? index : -1;
}

void check_sections(const Settings& settings) {
  const std::vector<std::string> names = section_names();
  Config everything = specimen();
  for (const auto& [name, section] : settings) {
    if (name.empty() || layer_index(name) >= 0 || std::ranges::count(names, name)) continue;
    for (const ConfigSection& known : sections_of(everything)) {
      for (const Option& option : known.options)
        require(known.path(option.name) != name, section.place.exact(), ": ", name,
                " is a key, found a section; expected ", expected_of(option));
    }
    throw UserError(text(section.place.exact(), ": unknown section [", printable(name), "]", suggestion(name, names)));
  }
}

void apply_layer(int64_t index, const Settings& settings, Config& config) {
  const std::string name = kLayer.data() + std::to_string(index);
  const RouterChoice& general = config.moe.router;
  RouterChoice& choice = config.moe.layers[index];
  choice.strategy = general.strategy;
  choose(name, choice, settings, config);
  config.origin[name] = settings.at(name).place.origin();
  if (choice.strategy == general.strategy) {
    copy_options(options_of(*general.options), options_of(*choice.options));
    for (const Option& option : router_section(name, choice).options) {
      const auto origin = config.origin.find("moe.router." + option.name);
      if (origin != config.origin.end()) config.origin.try_emplace(name + "." + option.name, origin->second);
    }
  }
  apply(router_section(name, choice), settings, config);
}

}  // namespace

Config make_config(const Settings& settings) {
  check_sections(settings);
  Config config;
  for (const auto& [name, section] : settings) config.moe.enabled |= name == "moe" || name.starts_with("moe.");
  if (config.moe.enabled) choose("moe.router", config.moe.router, settings, config);
  for (const ConfigSection& section : sections_of(config)) apply(section, settings, config);
  for (const auto& [name, section] : settings) {
    if (const int64_t index = layer_index(name); index >= 0) apply_layer(index, settings, config);
  }
  return config;
}

}  // namespace agon
