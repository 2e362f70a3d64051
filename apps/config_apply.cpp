#include "apps/config_apply.h"

#include <algorithm>
#include <charconv>

#include "apps/config_sections.h"
#include "apps/nearest.h"
#include "apps/utf8.h"
#include "core/error.h"

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

using Keys = std::map<std::string, Setting>;

bool is_axis(const std::string& key) { return key == "score" || key == "selection" || key == "weight"; }

/// Whether the options have the key, and, where they list its values, this one among them.
bool take(const std::vector<Option>& options, const std::string& key, const Setting& setting) {
  const auto option = std::ranges::find(options, key, &Option::name);
  const std::string* const value = std::get_if<std::string>(&setting.value);
  return option != options.end() &&
         (!value || option->one_of.empty() || std::ranges::count(option->one_of, *value) > 0);
}

/// The first axis among the keys that the strategy does not take, or end().
Keys::const_iterator foreign_axis(const Keys& keys, const std::string& strategy) {
  const RouterChoice choice = router_named(strategy);
  const std::vector<Option> options = options_of(*choice.options);
  return std::ranges::find_if(
      keys, [&](const auto& given) { return is_axis(given.first) && !take(options, given.first, given.second); });
}

/// The strategy of free axes that takes most of the axes among the keys: what it does not take is a value to complain
/// of.
/// "" where none of their names is one of its keys.
std::string composed_by(const Keys& keys) {
  std::string best;
  int64_t most = -1;
  for (const auto& [name, make] : routers()) {
    const auto made = make();
    const std::vector<Option> options = options_of(*made);
    const auto known = [&](const auto& given) {
      return !is_axis(given.first) || std::ranges::count(options, given.first, &Option::name) > 0;
    };
    if (!made->free_axes() || !std::ranges::all_of(keys, known)) continue;
    const int64_t taken = std::ranges::count_if(
        keys, [&](const auto& given) { return is_axis(given.first) && take(options, given.first, given.second); });
    if (taken > most) most = taken, best = name;
  }
  return best;
}

/// Makes the options of the strategy that the section names, or that its axes ask for, else of the one `choice` has.
void choose(const std::string& name, RouterChoice& choice, const Settings& settings, Config& config) {
  const ConfigSection section = router_section(name, choice);
  const std::string path = section.path("strategy");
  if (const auto given = settings.find(name); given != settings.end()) {
    const Keys& keys = given->second.keys;
    if (const auto strategy = keys.find("strategy"); strategy != keys.end()) {
      store(section.options.front(), path, strategy->second);
      config.origin[path] = strategy->second.place.origin();
    } else if (const auto axis = foreign_axis(keys, choice.strategy); axis != keys.end()) {
      // A preset sets all three axes: where a layer inherits one, a single axis would drop the two others unseen.
      const bool whole = router_named(choice.strategy).options->free_axes() || name == "moe.router" ||
                         (keys.contains("score") && keys.contains("selection"));
      const std::string composed = composed_by(keys);
      require(whole || composed.empty(), axis->second.place.exact(), ": ", section.path(axis->first),
              ": the layer has the strategy \"", choice.strategy,
              "\" of [moe.router], which does not take it: name a strategy, or both score and selection");
      if (!composed.empty()) {
        choice.strategy = composed;
        config.origin[path] = axis->second.place.origin();
      }
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
  // Another strategy starts from its own defaults; other axes do not, they are one strategy to the user.
  const bool same = choice.strategy == general.strategy;
  if (same || (general.options->free_axes() && choice.options->free_axes())) {
    std::vector<Option> inherited = options_of(*general.options);
    if (!same)
      std::erase_if(inherited, [&](const Option& o) {
        return o.name == "score" || !config.origin.contains("moe.router." + o.name);
      });
    copy_options(inherited, options_of(*choice.options));
    for (const Option& option : inherited) {
      const auto origin = config.origin.find("moe.router." + option.name);
      if (origin != config.origin.end()) config.origin.try_emplace(name + "." + option.name, origin->second);
    }
    if (same && config.origin.contains("moe.router.strategy"))
      config.origin.try_emplace(name + ".strategy", config.origin.at("moe.router.strategy"));
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
