#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace agon {

/// Insertions, deletions, substitutions and swaps of neighbours that make `a` into `b`, no part edited twice (the
/// restricted Damerau-Levenshtein distance).
int64_t edit_distance(std::string_view a, std::string_view b);

/// The known name with the least distance, the first of equals; empty when none shares enough to be meant.
std::string nearest(std::string_view name, const std::vector<std::string>& known);

/// How a message about an unknown name ends: `; did you mean "width"?`, or `; known are a, b, c` when nothing is near.
std::string suggestion(std::string_view name, const std::vector<std::string>& known);

/// "a, b, c"
std::string joined(const std::vector<std::string>& names, std::string_view between = ", ");

}  // namespace agon
