#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <variant>

#include "apps/option.h"

namespace agon {

/// Where the user wrote something.
struct Place {
  std::string source;  // a file, or "command line", which has no lines
  int64_t line = 0, column = 0;

  std::string exact() const { return line ? origin() + ":" + std::to_string(column) : source; }
  std::string origin() const { return line ? source + ":" + std::to_string(line) : source; }
};

/// A value that no option takes: "an array", "a date", ...
struct Unsupported {
  std::string what;
};

/// A value as the user wrote it.
struct Setting {
  std::variant<int64_t, double, bool, std::string, Unsupported> value;
  Place place;  // of the key
};

struct SettingsSection {
  Place place;
  std::map<std::string, Setting> keys;
};

/// What the user wrote, before it is compared with what exists: by section ("" for the keys outside every section,
/// "moe.router", "moe.layer.3" for the table of [[moe.layer]] with index = 3) and key.
using Settings = std::map<std::string, SettingsSection>;

std::string found(const Setting& setting);  ///< for messages: `integer 3`, `string "abc"`

/// Stores a setting in an option of the given path ("model.width"). Throws UserError naming place, path, what was found
/// and what was expected when its type or range forbids it.
void store(const Option& option, const std::string& path, const Setting& setting);

}  // namespace agon
