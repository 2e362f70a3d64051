#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "apps/config.h"

namespace agon {

/// What may change when a run is resumed: keys, and sections as "log.*".
std::span<const std::string> free_on_resume();

/// What every rank of a job has to have alike: values as TOML by key. Paths, devices' numbers, threads and the log are
/// each rank's own.
std::map<std::string, std::string> shared_by_ranks(const Config& config);

/// "model.width: 128 -> 256" for every key whose values differ, in the order of the file, without those in `except`. A
/// key that only one of them has stands as (none) in the other.
std::vector<std::string> differences(const Config& a, const Config& b, std::span<const std::string> except = {});

}  // namespace agon
