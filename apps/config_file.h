#pragma once
#include <span>
#include <string>
#include <string_view>

#include "apps/config.h"

namespace agon {

/// Reads the TOML file at `path` and applies the overrides (`section.key=value`, the later one wins). Throws UserError
/// naming file, line, column and key, what was found and what was expected, also for what Config::validate refuses.
Config load_config(const std::string& path, std::span<const std::string> overrides = {});

/// As load_config, from text; `name` stands for the file.
Config parse_config(std::string_view toml, const std::string& name, std::span<const std::string> overrides = {});

}  // namespace agon
