#include "apps/config_dump.h"

#include "apps/config_sections.h"
#include "apps/utf8.h"

namespace agon {

std::string dump(const Config& config) {
  constexpr std::string_view kLayer = "moe.layer.";
  const auto from = [&](const std::string& path) {
    const auto origin = config.origin.find(path);
    return "  # from " + (origin == config.origin.end() ? "default" : printable(origin->second)) + "\n";
  };
  std::string toml = "# The effective configuration, and where each value came from.\n";
  Config copy = config;
  for (const ConfigSection& section : sections_of(copy)) {
    if (section.name.starts_with(kLayer)) {
      toml += "\n[[moe.layer]]\nindex = " + section.name.substr(kLayer.size()) + from(section.name);
    } else if (!section.name.empty()) {
      toml += "\n[" + section.name + "]\n";
    }
    for (const Option& option : section.options)
      toml += option.name + " = " + toml_of(option) + from(section.path(option.name));
  }
  return toml;
}

}  // namespace agon
