#pragma once
#include "apps/config.h"
#include "apps/settings.h"

namespace agon {

/// The defaults, changed by what the user wrote. Throws UserError naming place, key, what was found and what was
/// expected, and the nearest name for an unknown section, key or strategy. Does not validate().
Config make_config(const Settings& settings);

}  // namespace agon
