#pragma once
#include <string>
#include <string_view>

#include "apps/settings.h"

namespace agon {

/// Reads TOML. `name` stands for the file in messages and places. Throws UserError with line and column.
Settings parse_toml(std::string_view toml, const std::string& name);

/// Adds `section.key=value`, over what is there. The value is parsed as TOML and, where that fails, taken as a string;
/// moe.layer.3.k=1 means the table of [[moe.layer]] with index 3. Throws UserError when there is no key or no `=`.
void add_override(Settings& settings, const std::string& override_text);

}  // namespace agon
