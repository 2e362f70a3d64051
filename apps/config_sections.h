#pragma once
#include <string>
#include <vector>

#include "apps/config.h"
#include "apps/option.h"

namespace agon {

/// A section of the file and its keys.
struct ConfigSection {
  std::string name;  // "" for the keys outside every section; "moe.layer.3" for [[moe.layer]] with index = 3
  std::vector<Option> options;

  std::string path(const std::string& key) const { return name.empty() ? key : name + "." + key; }
};

/// The section [moe.router], or one of [[moe.layer]]: the strategy, and the strategy's own options.
ConfigSection router_section(const std::string& name, RouterChoice& choice);

/// All sections of a config in the order of its file; those of experts only when it has experts. The options point into
/// `config`.
std::vector<ConfigSection> sections_of(Config& config);

/// A config in which every section exists, with its defaults: what there is to know without a file.
Config specimen();

/// The names of sections that a file may have, without [[moe.layer]].
std::vector<std::string> section_names();

}  // namespace agon
