#pragma once
#include <span>
#include <string>
#include <vector>

#include "apps/config.h"

namespace agon {

/// What may change when a run is resumed: keys, and sections as "log.*".
std::span<const std::string> free_on_resume();

/// "model.width: 128 -> 256" for every key whose values differ, in the order of the file, without those in `except`. A
/// key that only one of them has stands as (none) in the other.
std::vector<std::string> differences(const Config& a, const Config& b, std::span<const std::string> except = {});

}  // namespace agon
