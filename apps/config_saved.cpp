#include "apps/config_saved.h"

#include "apps/config_apply.h"
#include "apps/config_sections.h"
#include "apps/toml.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr const char* kGeneral = "moe.router";

bool is_layer(const std::string& section) { return section.starts_with("moe.layer."); }

const std::string* word(const Settings& settings, const std::string& section, const std::string& key) {
  const auto found = settings.find(section);
  if (found == settings.end()) return nullptr;
  const auto setting = found->second.keys.find(key);
  return setting == found->second.keys.end() ? nullptr : std::get_if<std::string>(&setting->second.value);
}

/// The strategy of a section; empty where nothing was written.
std::string strategy_of(const Settings& settings, const std::string& section) {
  if (const std::string* own = word(settings, section, "strategy")) return *own;
  return section == kGeneral ? RouterChoice().strategy : strategy_of(settings, kGeneral);
}

bool equal(const Setting& a, const Setting& b) {
  return std::visit(
      []<class A, class B>(const A& x, const B& y) {
        if constexpr (std::is_same_v<A, B> && !std::is_same_v<A, Unsupported>)
          return x == y;
        else
          return false;
      },
      a.value, b.value);
}

/// Leaves in the layers of the general strategy only what they have of their own.
void inherit(Settings& settings) {
  const auto general = settings.find(kGeneral);
  if (general == settings.end()) return;
  for (auto& [name, section] : settings) {
    if (!is_layer(name) || strategy_of(settings, name) != strategy_of(settings, kGeneral)) continue;
    std::erase_if(section.keys, [&](const auto& entry) {
      const auto same = general->second.keys.find(entry.first);
      return same != general->second.keys.end() && equal(same->second, entry.second);
    });
  }
}

bool takes(const ConfigSection& section, const std::string& key, const Setting& setting) {
  for (const Option& option : section.options) {
    if (option.name != key) continue;
    try {
      store(option, section.path(key), setting);
      return true;
    } catch (const UserError&) { return false; }
  }
  return false;
}

}  // namespace

Config saved_config(std::string_view toml, const std::string& name) { return make_config(parse_toml(toml, name)); }

Config parse_saved_config(std::string_view toml, const std::string& name, std::span<const std::string> overrides) {
  Settings settings = parse_toml(toml, name);
  inherit(settings);
  Settings changed = settings, kept = settings;
  for (const std::string& text : overrides) add_override(changed, text);
  const std::string then = strategy_of(settings, kGeneral), now = strategy_of(changed, kGeneral);
  for (const auto& [section, written] : changed) {
    if (section != kGeneral && !is_layer(section)) continue;
    const std::string before = strategy_of(settings, section), after = strategy_of(changed, section);
    if (after == before || !routers().contains(after)) continue;  // make_config refuses an unknown one
    auto& keys = kept.try_emplace(section, written.place, std::map<std::string, Setting>{}).first->second.keys;
    // A layer that leaves the general strategy would not inherit from it any more.
    if (before == then && after != now && changed.contains(kGeneral))
      for (const auto& [key, setting] : changed.at(kGeneral).keys) keys.try_emplace(key, setting);
    RouterChoice scratch = router_named(after);
    const ConfigSection options = router_section(section, scratch);
    std::erase_if(keys, [&](const auto& entry) {
      return entry.first == "strategy" || !takes(options, entry.first, entry.second);
    });
  }
  for (const std::string& text : overrides) add_override(kept, text);
  Config config = make_config(kept);
  config.validate();
  return config;
}

}  // namespace agon
