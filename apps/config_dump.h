#pragma once
#include <string>

#include "apps/config.h"

namespace agon {

/// The effective config as TOML, each key with a comment on where its value came from. parse_config reads it back to
/// the same values.
std::string dump(const Config& config);

}  // namespace agon
