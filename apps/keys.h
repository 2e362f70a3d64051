#pragma once
#include <ostream>
#include <string>

namespace agon {

/// Prints every key of a config, or those of one section and the sections below it: type, default, range, meaning;
/// those of [moe.router] for each strategy. Throws UserError naming the nearest section when there is none of that
/// name.
void print_keys(std::ostream& out, const std::string& section = "");

}  // namespace agon
