#pragma once
#include <span>
#include <string>
#include <string_view>

#include "apps/config.h"

namespace agon {

/// A checkpoint's configuration as it was. Not validated: files it names may be gone.
Config saved_config(std::string_view toml, const std::string& name);

/// A checkpoint's configuration with overrides. As parse_config, but a dump names every key, which must not stand in
/// the way of an override that changes a strategy or all layers:
///   - where an override changes the strategy of [moe.router] or of a layer, what the other strategy does not have or
///     not allow takes the new strategy's default, unless it is overridden itself; what both have, as k, stays;
///   - what a layer has in common with [moe.router] follows overrides of [moe.router].
Config parse_saved_config(std::string_view toml, const std::string& name, std::span<const std::string> overrides);

}  // namespace agon
